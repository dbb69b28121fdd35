/** containerd.services.images.v1.Images */
import { invalidArgument } from '../../errors.js';
import type { Image, ImageInput } from '../../stores/images.js';
import type { Call } from '../call.js';
import { descriptorMessage, descriptorOf, givenInstant, mapped, timestampOf } from '../messages/convert.js';
import { type ImageList, imageListChunks } from '../messages/image-list.js';
import type { DescriptorMessage, FieldMask, ImageMessage, Timestamp } from '../messages/messages.js';
import { EMPTY, list, type Service, type ServiceHost, unary } from '../service.js';

interface ImageRequest {
  image: ImageMessage | null;
  updateMask?: FieldMask | null;
  sourceDateEpoch: Timestamp | null;
}
interface DeleteRequest {
  name: string;
  sync: boolean;
  target: DescriptorMessage | null;
}

export function imagesService({ db, collect }: ServiceHost): Service {
  const store = db.images;
  return {
    name: 'containerd.services.images.v1.Images',
    tooLarge: { List: 'use filters' },
    codecs: { List: { chunks: imageListChunks(imageMessage) } },
    methods: {
      Get: unary(async ({ name }: { name: string }, { context }) => ({
        image: imageMessage(await store.get(context, name)),
      })),

      List: list(
        'images',
        async ({ filters }: { filters: string[] }, { cancellable }): Promise<ImageList> =>
          filters.length === 0
            ? store.stored(cancellable)
            : mapped(await store.listed(cancellable, ...filters), imageMessage),
      ),

      Create: unary(async (request: ImageRequest, call) => ({
        image: imageMessage(await store.create(contextOf(request, call), inputOf(request))),
      })),

      Update: unary(async (request: ImageRequest, call) => {
        const paths = request.updateMask?.paths ?? [];
        return {
          image: imageMessage(await store.update(contextOf(request, call), inputOf(request), ...paths)),
        };
      }),

      Delete: unary(async ({ name, sync, target }: DeleteRequest, call) => {
        await store.delete(call.context, name, { target: target ? { digest: target.digest } : undefined });
        if (sync) await collect(call.signal);
        return EMPTY;
      }),
    },
  };
}

function contextOf({ sourceDateEpoch }: ImageRequest, { context }: Call): Call['context'] {
  const epoch = givenInstant(sourceDateEpoch);
  return epoch === undefined ? context : { ...context, sourceDateEpoch: epoch };
}

function inputOf({ image }: ImageRequest): ImageInput {
  if (image === null) throw invalidArgument('the request has no image');
  const { name, labels, target } = image;
  return { name, labels, target: target ? descriptorOf(target) : undefined };
}

export const imageMessage = ({ name, labels, target, createdAt, updatedAt }: Image): ImageMessage => ({
  name,
  labels,
  target: descriptorMessage(target),
  createdAt: timestampOf(createdAt),
  updatedAt: timestampOf(updatedAt),
});
