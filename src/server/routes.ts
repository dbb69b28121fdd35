/** Turns services into routes: a path for every method that has a function. Called by rpc-server.ts. */
import { duplexRoute, listRoute, type Observer, serverStreamRoute, unaryRoute, type Wire } from './call.js';
import { CallCost } from './grpc/call-cost.js';
import type { Route } from './grpc/exchange.js';
import { MessageTooLarge } from './messages/wire-writer.js';
import { type Method, methodsOf } from './schema.js';
import type { MethodImpl, Service } from './service.js';
import { detailedStatusOf, resourceExhausted, statusOf } from './status.js';

export function routesOf(
  services: readonly Service[],
  messageBytes: number,
  observer: (service: string, method: string) => Observer,
): ReadonlyMap<string, Route> {
  const routes = new Map<string, Route>();
  for (const service of services) {
    for (const method of methodsOf(service.name).values()) {
      const impl = service.methods[method.name];
      if (impl === undefined) continue;
      const observed = observer(service.name, method.name);
      routes.set(method.path, routeOf(service, method, impl, observed, messageBytes));
    }
  }
  return routes;
}

function routeOf(
  service: Service,
  method: Method,
  impl: MethodImpl,
  observer: Observer,
  messageBytes: number,
): Route {
  const codecs = service.codecs?.[method.name];
  const frame = codecs?.frameResponse ?? method.response.frame;
  const instead = service.tooLarge?.[method.name] ?? 'ask for less';
  const tooLarge = `attempted to send message larger than max (${messageBytes}): ${instead}`;
  const wire: Wire<unknown, unknown> = {
    decode: codecs?.decodeRequest ?? method.request.decode,
    frame: (message) => frame(message, messageBytes),
    toStatus: (error, isDetailed) =>
      (isDetailed || service.detailedErrors ? detailedStatusOf : statusOf)(
        error instanceof MessageTooLarge ? resourceExhausted(tooLarge) : error,
      ),
    cost: new CallCost(messageBytes, keepsOf(impl), impl.kind === 'list' ? LIST_WORK_BYTES : 0),
  };
  if (impl.kind === 'unary') return unaryRoute(impl.run, wire, observer);
  if (impl.kind === 'list') {
    const chunks =
      codecs?.chunks ?? ((items) => method.response.chunks(impl.field, items as Iterable<unknown>));
    return listRoute(impl.run, { ...wire, chunks, bytesMax: messageBytes }, observer);
  }
  if (impl.kind === 'stream') return serverStreamRoute(impl.run, wire, observer);
  return duplexRoute(impl.run, wire, observer);
}

/** What a list has in hand while it goes through the store: its compiled filters, and the records that it has come to. */
const LIST_WORK_BYTES = 384 * 1024;

/** Bytes that a call keeps at a time, where known. */
function keepsOf(impl: MethodImpl): number | undefined {
  if (impl.kind === 'list') return undefined;
  return impl.kind === 'duplex' ? 0 : impl.keepsBytes;
}
