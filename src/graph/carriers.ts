/**
 * Which carrier brings the C++ graph core: its addon, or WebAssembly where that does not load. Called by open.ts and
 * `ebbtide doctor`. Threading: one core belongs to the JavaScript thread that created it.
 */
import type { GraphCore } from '../engine/graph.js';
import { invalidArgument, unavailable } from '../errors.js';
import { addonError, addonPath, buildCommand, loadAddon } from '../system/addon.js';
import { type CarriedGraph, CoreGraph } from './core-graph.js';
import { WasmGraph, wasmError, wasmPath } from './wasm-graph.js';

/** A carrier of the graph core: the addon, or WebAssembly. */
export type CoreKind = GraphCore['kind'];
export const coreKinds: readonly CoreKind[] = ['native', 'wasm'];

/** How the graph core was loaded. */
export interface CoreInfo {
  /** Its carrier. */
  core: CoreKind;
  /** Why it is not the addon. */
  reason?: string;
  /** The addon's or the module's file. */
  path: string;
}

const remedy = (): string => `build it: ${buildCommand()} (needs g++ with C++20, make and python3)`;

/** What `createGraph()` would use now. */
export function coreInfo(): CoreInfo {
  const addon = addonPath('ebbtide_core');
  if (forced() === 'native') return { core: 'native', path: addon };
  if (forced() === 'wasm')
    return { core: 'wasm', path: wasmPath(), reason: 'asked for (--core, EBBTIDE_CORE)' };
  if (loadAddon('ebbtide_core') !== undefined) return { core: 'native', path: addon };
  return { core: 'wasm', path: wasmPath(), reason: `${addonError('ebbtide_core')}; ${remedy()}` };
}

/**
 * An empty graph. A carrier asked for by the argument, else by the environment (EBBTIDE_CORE=native or wasm), is used or
 * fails with Unavailable; otherwise the addon is used where it loads, and WebAssembly where it does not.
 */
export function createGraph(prefer: CoreKind | undefined = forced()): GraphCore {
  const addon = prefer === 'wasm' ? undefined : loadAddon('ebbtide_core');
  if (addon !== undefined) {
    const { Graph } = addon as { Graph: new () => CarriedGraph };
    return new CoreGraph('native', new Graph());
  }
  if (prefer !== 'native' && wasmError() === '') return new CoreGraph('wasm', new WasmGraph());
  const missing = prefer === 'wasm' ? undefined : `its addon did not load: ${addonError('ebbtide_core')}`;
  const module = prefer === 'native' ? undefined : `its WebAssembly did not: ${wasmError()}`;
  throw unavailable(`there is no graph core: ${[missing, module].filter(Boolean).join('; ')}`, {
    object: prefer === 'wasm' ? wasmPath() : addonPath('ebbtide_core'),
    remedy: prefer === 'wasm' ? 'install the package again' : remedy(),
  });
}

function forced(): CoreKind | undefined {
  const wanted = process.env.EBBTIDE_CORE;
  if (wanted === undefined || wanted === '') return undefined;
  const kind = coreKinds.find((known) => known === wanted);
  if (kind !== undefined) return kind;
  throw invalidArgument(`EBBTIDE_CORE is ${JSON.stringify(wanted)}`, { remedy: 'use native or wasm' });
}
