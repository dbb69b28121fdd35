/** Unpacks what a transfer imported, for the platforms and snapshotters that its destination names. Used by transfer.ts. */
import type { CallContext } from '../../context.js';
import type { DB } from '../../db.js';
import { invalidArgument, isNotFound } from '../../errors.js';
import type { Platform } from '../../images/documents.js';
import { LAYERS_AT_ONCE_MAX } from '../../images/layers/chain.js';
import { hostPlatform } from '../../images/platforms.js';
import { resolveManifest } from '../../images/resolve.js';
import type { OnProgress } from '../../images/services.js';
import { unpackImage } from '../../images/unpack.js';
import type { Image } from '../../stores/images.js';
import type { ServiceHost } from '../service.js';
import { platformOf, type UnpackMessage } from './messages.js';

const UNPACKS_MAX = 10;

export interface Unpack {
  platform: Platform;
  snapshotter: string;
  layersAtOnce: number;
}

/** InvalidArgument: too many, or a snapshotter that is not here. The default is overlayfs where the daemon has it. */
export function unpacksOf({ db, limits }: ServiceHost, messages: readonly UnpackMessage[]): Unpack[] {
  if (messages.length > UNPACKS_MAX) {
    throw invalidArgument(`the request has ${messages.length} unpacks, of which ${UNPACKS_MAX} are allowed`);
  }
  return messages.map(({ platform, snapshotter: named }) => {
    const [first = 'overlayfs'] = db.snapshotters().keys();
    const snapshotter = named || (db.snapshotter('overlayfs') ? 'overlayfs' : first);
    if (db.snapshotter(snapshotter) === undefined) {
      throw invalidArgument(`snapshotter not loaded: ${snapshotter}`, { object: snapshotter });
    }
    return {
      ...{ snapshotter, platform: platform?.os ? platformOf(platform) : hostPlatform() },
      layersAtOnce: Math.min(limits.layersAtOnce, LAYERS_AT_ONCE_MAX),
    };
  });
}

/** Images that have nothing for the platform stay as they are. */
export async function unpackFor(
  db: DB,
  ctx: CallContext,
  targets: readonly Image['target'][],
  { platform, snapshotter, layersAtOnce }: Unpack,
  progress?: OnProgress,
): Promise<void> {
  for (const target of new Map(targets.map((one) => [one.digest, one])).values()) {
    if (!(await fits(db, ctx, target, platform))) continue;
    await unpackImage(db, ctx, { target }, snapshotter, { platform, progress, layersAtOnce });
  }
}

async function fits(db: DB, ctx: CallContext, target: Image['target'], platform: Platform): Promise<boolean> {
  try {
    await resolveManifest(db.content, ctx, target, platform);
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}
