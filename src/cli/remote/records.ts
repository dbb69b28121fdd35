/** Images, containers, leases and namespaces of a daemon. Called by store.ts. */
import type { CallContext } from '../../context.js';
import type { StringMap } from '../../model/records.js';
import {
  anyMapOf,
  anyOf,
  descriptorOf,
  instantOf,
  runtimeOf,
  timestampOf,
} from '../../server/messages/convert.js';
import type {
  ContainerMessage,
  ImageMessage,
  LeaseMessage,
  NamespaceMessage,
  ResourceMessage,
} from '../../server/messages/messages.js';
import type { Container, ContainerInput } from '../../stores/containers.js';
import type { Image, ImageDeleteOptions, ImageInput } from '../../stores/images.js';
import {
  type Lease,
  type LeaseOption,
  type LeaseRef,
  leaseDraft,
  type Resource,
} from '../../stores/leases.js';
import type { ContainerRecords, ImageRecords, LeaseRecords, NamespaceRecords } from '../store.js';
import type { Connection } from './connection.js';

/** Calls of one service. */
abstract class Remote {
  protected readonly connection: Connection;
  readonly #service: string;

  constructor(connection: Connection, service: string) {
    this.connection = connection;
    this.#service = service;
  }

  protected unary<T>(ctx: CallContext, method: string, request: object): Promise<T> {
    return this.connection.unary<T>(this.#service, method, request, ctx);
  }
}

export class RemoteImages extends Remote implements ImageRecords {
  constructor(connection: Connection) {
    super(connection, 'containerd.services.images.v1.Images');
  }

  async get(ctx: CallContext, name: string): Promise<Image> {
    return imageOf((await this.unary<{ image: ImageMessage }>(ctx, 'Get', { name })).image);
  }

  async list(ctx: CallContext, ...filters: string[]): Promise<Image[]> {
    const images = await this.connection.list<ImageMessage>('images', 'Images', { filters }, ctx);
    return images.map(imageOf);
  }

  async create(ctx: CallContext, image: ImageInput): Promise<Image> {
    return imageOf(
      (await this.unary<{ image: ImageMessage }>(ctx, 'Create', imageRequest(ctx, image))).image,
    );
  }

  async update(ctx: CallContext, image: ImageInput, ...paths: string[]): Promise<Image> {
    const request = { ...imageRequest(ctx, image), ...(paths.length > 0 && { updateMask: { paths } }) };
    return imageOf((await this.unary<{ image: ImageMessage }>(ctx, 'Update', request)).image);
  }

  async delete(
    ctx: CallContext,
    name: string,
    { target, synchronous }: ImageDeleteOptions = {},
  ): Promise<void> {
    const wanted = target?.digest ? { target: { mediaType: '', digest: target.digest, size: 0 } } : {};
    await this.unary(ctx, 'Delete', { name, sync: synchronous === true, ...wanted });
  }
}

const imageRequest = (
  { sourceDateEpoch }: CallContext,
  { name, labels = {}, target = {} }: ImageInput,
): object => ({
  image: {
    name,
    labels,
    target: { mediaType: '', digest: '', size: 0, ...target },
  },
  ...(sourceDateEpoch !== undefined && { sourceDateEpoch: timestampOf(sourceDateEpoch) }),
});

const imageOf = ({ name, labels, target, createdAt, updatedAt }: ImageMessage): Image => ({
  name,
  labels,
  target: descriptorOf(target ?? { mediaType: '', digest: '', size: 0 }),
  createdAt: instantOf(createdAt),
  updatedAt: instantOf(updatedAt),
});

const CONTAINERS = 'containerd.services.containers.v1.Containers';

export class RemoteContainers extends Remote implements ContainerRecords {
  constructor(connection: Connection) {
    super(connection, CONTAINERS);
  }

  async list(ctx: CallContext, ...filters: string[]): Promise<Container[]> {
    const found: Container[] = [];
    const responses = this.connection.stream<{ container: ContainerMessage }>(
      CONTAINERS,
      'ListStream',
      { filters },
      ctx,
    );
    for await (const { container } of responses) found.push(containerOf(container));
    return found;
  }

  async create(ctx: CallContext, container: ContainerInput): Promise<Container> {
    const { sandboxId = '', ...same } = container;
    const request = { container: { ...same, sandbox: sandboxId } };
    return containerOf((await this.unary<{ container: ContainerMessage }>(ctx, 'Create', request)).container);
  }

  async delete(ctx: CallContext, id: string): Promise<void> {
    await this.unary(ctx, 'Delete', { id });
  }
}

const containerOf = (message: ContainerMessage): Container => ({
  id: message.id,
  labels: message.labels,
  image: message.image,
  runtime: runtimeOf(message.runtime) ?? { name: '' },
  spec: anyOf(message.spec ?? { typeUrl: '', value: new Uint8Array() }),
  snapshotter: message.snapshotter,
  snapshotKey: message.snapshotKey,
  extensions: anyMapOf(message.extensions),
  sandboxId: message.sandbox,
  createdAt: instantOf(message.createdAt),
  updatedAt: instantOf(message.updatedAt),
});

export class RemoteLeases extends Remote implements LeaseRecords {
  constructor(connection: Connection) {
    super(connection, 'containerd.services.leases.v1.Leases');
  }

  async create(ctx: CallContext, ...options: LeaseOption[]): Promise<Lease> {
    const request = leaseDraft(options);
    return leaseOf((await this.unary<{ lease: LeaseMessage }>(ctx, 'Create', request)).lease);
  }

  async delete(ctx: CallContext, lease: LeaseRef): Promise<void> {
    await this.unary(ctx, 'Delete', { id: idOf(lease) });
  }

  async list(ctx: CallContext, ...filters: string[]): Promise<Lease[]> {
    return (await this.connection.list<LeaseMessage>('leases', 'Leases', { filters }, ctx)).map(leaseOf);
  }

  async addResource(ctx: CallContext, lease: LeaseRef, resource: Resource): Promise<void> {
    await this.unary(ctx, 'AddResource', { id: idOf(lease), resource });
  }

  async listResources(ctx: CallContext, lease: LeaseRef): Promise<Resource[]> {
    const request = { id: idOf(lease) };
    const resources = await this.connection.list<ResourceMessage>(
      'resources',
      'LeaseResources',
      request,
      ctx,
    );
    return resources.map(({ id, type }) => ({ id, type }));
  }
}

const idOf = (lease: LeaseRef): string => (typeof lease === 'string' ? lease : lease.id);
const leaseOf = ({ id, createdAt, labels }: LeaseMessage): Lease => ({
  id,
  createdAt: instantOf(createdAt),
  labels,
});

export class RemoteNamespaces extends Remote implements NamespaceRecords {
  constructor(connection: Connection) {
    super(connection, 'containerd.services.namespaces.v1.Namespaces');
  }

  async list(ctx: CallContext): Promise<string[]> {
    const namespaces = await this.connection.list<NamespaceMessage>('namespaces', 'Namespaces', {}, ctx);
    return namespaces.map(({ name }) => name);
  }

  async labels(ctx: CallContext, name: string): Promise<StringMap> {
    return (await this.unary<{ namespace: NamespaceMessage }>(ctx, 'Get', { name })).namespace.labels;
  }

  async create(ctx: CallContext, name: string, labels: StringMap = {}): Promise<void> {
    await this.unary(ctx, 'Create', { namespace: { name, labels } });
  }

  async setLabel(ctx: CallContext, name: string, label: string, value: string): Promise<void> {
    const namespace = { name, labels: { [label]: value } };
    await this.unary(ctx, 'Update', { namespace, updateMask: { paths: [`labels.${label}`] } });
  }

  async delete(ctx: CallContext, name: string): Promise<void> {
    await this.unary(ctx, 'Delete', { name });
  }
}
