/**
 * containerd.services.content.v1.Content; its two streams of bytes are in content-read.ts and
 * content-write.ts.
 */
import type { ContentInfo, IngestStatus } from '../../backends/contract.js';
import type { DB } from '../../db.js';
import { invalidArgument } from '../../errors.js';
import { validateDigest } from '../../model/digest.js';
import type { Limits } from '../limits.js';
import { Batches } from '../messages/batches.js';
import { decodeWriteRequest } from '../messages/content-codec.js';
import { mapped, timestampOf } from '../messages/convert.js';
import type { ContentInfoMessage, FieldMask, IngestStatusMessage } from '../messages/messages.js';
import { OpenReaders } from '../open-readers.js';
import { duplex, EMPTY, list, type Service, stream, unary } from '../service.js';
import { READ_BYTES, type ReadRequest, readContent } from './content-read.js';
import { writeContent } from './content-write.js';

interface DigestRequest {
  digest: string;
}
interface RefRequest {
  ref: string;
}
interface FilterRequest {
  filters: string[];
}
interface UpdateRequest {
  info: ContentInfoMessage | null;
  updateMask: FieldMask | null;
}

/** What the service calls: the content store, or a wrapper of it. */
export type ServedContent = Pick<
  DB['content'],
  'info' | 'has' | 'update' | 'walk' | 'delete' | 'status' | 'listStatuses' | 'abort' | 'readerAt' | 'writer'
>;

export function contentService(store: ServedContent, limits: Limits): Service {
  const readers = new OpenReaders(store);
  const closing = new Map<string, Promise<void>>();
  return {
    name: 'containerd.services.content.v1.Content',
    tooLarge: { ListStatuses: 'use filters' },
    codecs: {
      Write: { decodeRequest: decodeWriteRequest },
      Read: { frameResponse: (message) => message as Buffer },
    },
    methods: {
      Info: unary(async ({ digest }: DigestRequest, { context }) => {
        validateDigest(digest);
        return { info: message(await store.info(context, digest)) };
      }),

      Update: unary(async ({ info, updateMask }: UpdateRequest, { context }) => {
        if (info === null) throw invalidArgument('the request has no info');
        validateDigest(info.digest);
        return { info: message(await store.update(context, info, ...(updateMask?.paths ?? []))) };
      }),

      List: stream<FilterRequest, { info: ContentInfoMessage[] }>(async ({ filters }, call, send) => {
        const batches = new Batches<ContentInfoMessage>(limits, (info) => send({ info }));
        await store.walk(call.cancellable, (info) => batches.add(message(info)), ...filters);
        await batches.flush();
      }),

      Delete: unary(async ({ digest }: DigestRequest, { context }) => {
        validateDigest(digest);
        await store.delete(context, digest);
        return EMPTY;
      }),

      Read: stream<ReadRequest, Buffer>(
        (request, call, send) => readContent(readers, request, call, send),
        READ_BYTES,
      ),

      Status: unary(async ({ ref }: RefRequest, { context }) => ({
        status: statusMessage(await store.status(context, ref)),
      })),

      ListStatuses: list('statuses', async ({ filters }: FilterRequest, { cancellable }) =>
        mapped(await store.listStatuses(cancellable, ...filters), statusMessage),
      ),

      Write: duplex((requests: Parameters<typeof writeContent>[1], call) =>
        writeContent({ store, limits, closing }, requests, call),
      ),

      Abort: unary(async ({ ref }: RefRequest, { context }) => {
        await store.abort(context, ref);
        return EMPTY;
      }),
    },
  };
}

const message = ({ digest, size, createdAt, updatedAt, labels }: ContentInfo): ContentInfoMessage => ({
  digest,
  size,
  createdAt: timestampOf(createdAt),
  updatedAt: timestampOf(updatedAt),
  labels,
});

export const statusMessage = (status: IngestStatus): IngestStatusMessage => ({
  startedAt: timestampOf(status.startedAt),
  updatedAt: timestampOf(status.updatedAt),
  ref: status.ref,
  offset: status.offset,
  total: status.total,
  expected: status.expected ?? '',
});
