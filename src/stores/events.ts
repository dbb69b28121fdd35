/** Events of changes that are done: of a collection, of a transaction with several calls. */
import type { EventsPublisher } from './host.js';

export interface Event {
  readonly namespace: string;
  readonly topic: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** Publishes one after the other. A failure is logged: nothing can be undone, and no caller waits for this event alone. */
export async function publishAll(
  publisher: EventsPublisher | undefined,
  events: readonly Event[],
  warn: (message: string, details: Readonly<Record<string, unknown>>) => void,
): Promise<void> {
  for (const { namespace, topic, payload } of events) {
    try {
      await publisher?.publish(namespace, topic, payload);
    } catch (error) {
      warn('publishing an event failed', {
        topic,
        error: error instanceof Error ? error.message : String(error),
      });
    }
  }
}
