/**
 * containerd.services.tasks.v1.Tasks: nothing runs here. Clients that show or remove a container ask for its
 * task and continue when there is none; everything that would start or change one is Unimplemented.
 */
import { requireNamespace } from '../../context.js';
import { notFound } from '../../errors.js';
import { EMPTY, type Service, unary } from '../service.js';

export const tasksService = (): Service => ({
  name: 'containerd.services.tasks.v1.Tasks',
  methods: {
    Get: unary(({ containerId }: { containerId: string }, { context }) => {
      requireNamespace(context);
      throw notFound(`no running task found: task ${containerId} not found`, { object: containerId });
    }),
    List: unary((_request: { filter: string }, { context }) => {
      requireNamespace(context);
      return EMPTY;
    }),
  },
});
