/** containerd.services.events.v1.Events */
import { requireNamespace } from '../../context.js';
import { invalidArgument, unavailable } from '../../errors.js';
import { givenAny, instantOf, timestampOf } from '../messages/convert.js';
import type { AnyMessage, EnvelopeMessage } from '../messages/messages.js';
import { EMPTY, type Service, type ServiceHost, stream, unary } from '../service.js';

interface PublishRequest {
  topic: string;
  event: AnyMessage | null;
}

export function eventsService({ events, stopping }: ServiceHost): Service {
  return {
    name: 'containerd.services.events.v1.Events',
    methods: {
      Publish: unary(({ topic, event }: PublishRequest, { context }) => {
        events.publishAny(requireNamespace(context), topic, givenAny(event));
        return EMPTY;
      }),

      Forward: unary(({ envelope }: { envelope: EnvelopeMessage | null }) => {
        if (envelope === null) throw invalidArgument('the request has no envelope');
        const { timestamp, namespace, topic, event } = envelope;
        events.forward({ timestamp: instantOf(timestamp), namespace, topic, event: givenAny(event) });
        return EMPTY;
      }),

      Subscribe: stream<{ filters: string[] }, EnvelopeMessage>(async ({ filters }, call, send) => {
        const signal = AbortSignal.any([call.signal, stopping]);
        const subscription = events.subscribe(filters, signal, call.memory);
        try {
          for (;;) {
            const envelopes = await subscription.next();
            if (envelopes.length === 0) break;
            for (const { timestamp, namespace, topic, event } of envelopes) {
              await send({ timestamp: timestampOf(timestamp), namespace, topic, event: event ?? null });
            }
          }
        } finally {
          subscription.close();
        }
        if (stopping.aborted) throw unavailable('the daemon is stopping', { remedy: 'subscribe again' });
      }),
    },
  };
}
