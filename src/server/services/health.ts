/** grpc.health.v1.Health: serving from start to stop, for the server as a whole and for each of its services. */
import { notFound } from '../../errors.js';
import { type Service, type ServiceHost, stream, unary } from '../service.js';

interface Request {
  service: string;
}
interface Response {
  status: number;
}
const Status = { serving: 1, notServing: 2, serviceUnknown: 3 } as const;

export function healthService(host: ServiceHost, services: ReadonlySet<string>): Service {
  const known = (service: string): boolean => service === '' || services.has(service);
  const state = (): Response => ({
    status: host.stopping.aborted ? Status.notServing : Status.serving,
  });
  return {
    name: 'grpc.health.v1.Health',
    methods: {
      Check: unary(({ service }: Request): Response => {
        if (!known(service)) throw notFound(`service "${service}" not found`, { object: service });
        return state();
      }),
      Watch: stream<Request, Response>(async ({ service }, call, send) => {
        await send(known(service) ? state() : { status: Status.serviceUnknown });
        await ended(AbortSignal.any([call.signal, host.stopping]));
        if (host.stopping.aborted) await send(state());
      }),
    },
  };
}

const ended = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
