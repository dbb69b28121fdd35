/**
 * Caches the content of committed layers while a chain is applied: each layer is looked up in all below it,
 * and without this the work for a layer would grow with their number. Committed layers do not change. Created
 * by images/unpack, for one chain at a time; used by layer-tree.ts.
 *
 * A directory of a layer is listed when a name in it is first looked up; the entry itself is read on demand.
 * Memory: up to `MAX_NAMES` names; beyond that nothing is cached. One descriptor for each layer, until
 * `close`.
 */
import { errnoOf, isAbsent } from '../../system/system-errors.js';
import { namesIn, type Place, Root } from './beneath.js';
import { look, type Sight } from './overlay-lookup.js';
import type { BytePath } from './paths.js';
import type { OverlayPrefix } from './target.js';

const MAX_NAMES = 200_000;

/** A name that exists and was not read yet. */
const unseen = Symbol('unseen');

type Listing = Map<BytePath, Sight | typeof unseen>;

const NOTHING: Listing = new Map();

interface Layer {
  readonly root: Root;
  /** By path below the root. */
  readonly directories: Map<BytePath, Listing>;
}

export class KnownLayers {
  readonly #layers = new Map<BytePath, Layer>();
  readonly #byRoot = new Map<Root, Layer>();
  readonly #maxNames: number;
  #names = 0;

  constructor(maxNames = MAX_NAMES) {
    this.#maxNames = maxNames;
  }

  /** The directory of a layer, open until `close`. */
  root(path: BytePath): Root {
    const known = this.#layers.get(path);
    if (known !== undefined) return known.root;
    const layer = { root: new Root(path), directories: new Map() };
    this.#layers.set(path, layer);
    this.#byRoot.set(layer.root, layer);
    return layer.root;
  }

  /** As `look` of overlay-lookup.ts; synchronous if the result is cached. */
  look(place: Place, overlay: OverlayPrefix | undefined): Sight | undefined | Promise<Sight | undefined> {
    const layer = this.#byRoot.get(place.root);
    if (layer === undefined) return look(place, overlay);
    const slash = place.path.lastIndexOf('/');
    const directory = slash < 0 ? '' : place.path.slice(0, slash);
    const listing = layer.directories.get(directory);
    if (listing === undefined) return this.#lookAndList(layer, directory, place, overlay);
    const sight = listing.get(place.path.slice(slash + 1));
    return sight === unseen ? this.#lookAndKeep(listing, place, overlay) : sight;
  }

  async #lookAndList(
    layer: Layer,
    directory: BytePath,
    place: Place,
    overlay: OverlayPrefix | undefined,
  ): Promise<Sight | undefined> {
    if (this.#names >= this.#maxNames) return look(place, overlay);
    const listing = await list({ root: layer.root, path: directory });
    this.#names += listing.size;
    layer.directories.set(directory, listing);
    return this.look(place, overlay);
  }

  async #lookAndKeep(
    listing: Listing,
    place: Place,
    overlay: OverlayPrefix | undefined,
  ): Promise<Sight | undefined> {
    const sight = await look(place, overlay);
    const name = place.path.slice(place.path.lastIndexOf('/') + 1);
    if (sight !== undefined) listing.set(name, sight);
    return sight;
  }

  /** REQUIRES: no call under way. */
  close(): void {
    for (const { root } of this.#layers.values()) root.close();
    this.#layers.clear();
    this.#byRoot.clear();
  }
}

async function list(directory: Place): Promise<Listing> {
  try {
    return new Map((await namesIn(directory)).map((name) => [name, unseen]));
  } catch (error) {
    if (isAbsent(error) || errnoOf(error) === 'ENOTDIR' || errnoOf(error) === 'ELOOP') return NOTHING;
    throw error;
  }
}
