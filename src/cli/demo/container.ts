/** The container that a demo runs. Called by walkthrough.ts and two-hosts.ts. */
import type { CallContext } from '../../context.js';
import type { DB } from '../../db.js';
import { present } from '../../errors.js';

interface DemoContainer {
  id: string;
  image: string;
  snapshotter: string;
  /** Of the snapshot below its own. */
  chainId: string;
}

export async function createContainer(
  db: DB,
  ctx: CallContext,
  { id, image, snapshotter, chainId }: DemoContainer,
): Promise<void> {
  await present(db.snapshotter(snapshotter), `snapshotter ${snapshotter}`).prepare(ctx, id, chainId);
  await db.containers.create(ctx, {
    id,
    image,
    runtime: { name: 'io.containerd.runc.v2' },
    spec: { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec', value: Buffer.from('{}') },
    snapshotter,
    snapshotKey: id,
  });
}
