/**
 * Which graph core runs: the C++ addon, or the TypeScript twin where it cannot load. Called by open.ts and the command
 * line (`coreInfo` for its version output). Threading: one core belongs to the JavaScript thread that created it.
 */

import type { GraphCore } from '../engine/graph.js';
import { invalidArgument, unavailable } from '../errors.js';
import { addonError, addonPath, buildCommand, loadAddon } from '../system/addon.js';
import { NativeGraph } from './graph-native.js';
import { TypeScriptGraph } from './graph-ts.js';

export type CoreKind = GraphCore['kind'];

export interface CoreInfo {
  core: CoreKind;
  /** Why the C++ core is not used. */
  reason?: string;
  addonPath?: string;
}

const remedy = (): string => `build it: ${buildCommand()} (needs g++ with C++20, make and python3)`;
let told = false;

/** What `createGraph()` would use now. */
export function coreInfo(): CoreInfo {
  if (forced() === 'typescript') return { core: 'typescript', reason: 'EBBTIDE_CORE=typescript' };
  const addon = loadAddon('ebbtide_core');
  if (addon !== undefined) return { core: 'native', addonPath: addonPath('ebbtide_core') };
  return { core: 'typescript', reason: addonError('ebbtide_core') };
}

/**
 * An empty graph. A core asked for by the argument, else by the environment (EBBTIDE_CORE=native or typescript), is
 * used or fails with Unavailable; otherwise the C++ core is used where it loads, and the TypeScript one, after one
 * line on standard error, where it does not.
 */
export function createGraph(prefer: CoreKind | undefined = forced()): GraphCore {
  if (prefer === 'typescript') return new TypeScriptGraph();
  const addon = loadAddon('ebbtide_core');
  if (addon !== undefined) return new NativeGraph(addon);
  const reason = addonError('ebbtide_core');
  if (prefer === 'native') {
    throw unavailable(`the C++ graph core is not available: ${reason}`, {
      object: addonPath('ebbtide_core'),
      remedy: remedy(),
    });
  }
  if (!told)
    process.stderr.write(`ebbtide: using the slower TypeScript graph core: ${reason}; ${remedy()}\n`);
  told = true;
  return new TypeScriptGraph();
}

function forced(): CoreKind | undefined {
  const wanted = process.env.EBBTIDE_CORE;
  if (wanted === undefined || wanted === '') return undefined;
  if (wanted === 'native' || wanted === 'typescript') return wanted;
  throw invalidArgument(`EBBTIDE_CORE is ${JSON.stringify(wanted)}`, { remedy: 'use native or typescript' });
}
