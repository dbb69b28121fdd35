/** What updates may change of a snapshot, and what filters may ask of it. Called by the snapshotters; pure. */
import { applyMapPath, unknownPath } from '../model/fieldpaths.js';
import { adaptLabels } from '../model/filters.js';
import { compactMap } from '../model/labels.js';
import type { StringMap } from '../model/records.js';
import type { SnapshotInfo } from './contract.js';

/** The labels after an update of some paths; none are all labels. */
export function relabelled(
  info: SnapshotInfo,
  paths: readonly string[],
  current: StringMap | undefined,
): StringMap | undefined {
  if (paths.length === 0) return compactMap(info.labels);
  let labels = current;
  for (const path of paths) {
    const changed = applyMapPath('labels', path, labels, info.labels);
    if (changed === null) throw unknownPath('snapshot', path, info.name);
    labels = changed;
  }
  return compactMap(labels);
}

/** Fields that filters may name. */
export function field(info: SnapshotInfo, path: readonly string[]): string | undefined {
  if (path[0] === 'labels') return adaptLabels(info.labels, path, 1);
  if (path.length > 1) return undefined;
  if (path[0] === 'name') return info.name;
  if (path[0] === 'kind') return info.kind;
  return path[0] === 'parent' ? info.parent : undefined;
}
