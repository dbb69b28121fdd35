/** The part of a check that is about unfinished uploads. Called by check.ts. */
import { basename } from 'node:path';
import { isNotFound, throwIfAborted } from '../errors.js';
import { IngestNames, underGuard } from '../gc/sweep/sweep.js';
import { ingestGuard } from '../stores/guards.js';
import type { Check } from './under-way.js';

const COLLECT = 'a full collection takes it: `ebbtide gc --full`';

export async function checkIngests(check: Check): Promise<void> {
  const { host, findings, signal } = check;
  const { content, engine, guards, contentStore } = host;
  for (const path of (await content.damagedIngests?.()) ?? []) {
    const remedy = `${COLLECT}, when it is an hour old`;
    await findings.add({ kind: 'ingest-damaged', object: basename(path), path, remedy });
  }
  const refs: string[] = [];
  if (content.walkStatusRefs) await content.walkStatusRefs((ref) => void refs.push(ref));
  else for (const { ref } of await content.listStatuses()) refs.push(ref);
  const names = await IngestNames.read(engine);
  for (const ref of refs) {
    throwIfAborted(signal);
    check.progress('ingests', ++findings.report.checked.ingests);
    const isNamed = (): boolean => names.isNamed(ref) || contentStore.inFlightIngests().has(ref);
    if (isNamed()) continue;
    await underGuard(guards, ingestGuard(ref), async () => {
      if (isNamed() || !(await isThere(content.status(ref)))) return;
      await findings.add({ kind: 'ingest-orphan', object: ref, remedy: COLLECT });
    });
  }
}

const isThere = (work: Promise<unknown>): Promise<boolean> =>
  work.then(
    () => true,
    (error: unknown) => !isNotFound(error),
  );
