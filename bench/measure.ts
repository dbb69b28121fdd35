/** The course of a comparison: load both sides, check that they have the same, measure one after the other. */
import { writeFile } from 'node:fs/promises';
import { imageNames } from '../src/synth/records.js';
import { type Counts, drawImage, type Plan } from '../src/synth/shape.js';
import { waitUntilCalm } from './calm.js';
import type { Brief, Collected, Measured, Target } from './results.js';
import type { Side } from './side.js';

/** Images that are there, those of the first namespace among them. */
export async function writeTargets(path: string, plan: Plan): Promise<void> {
  const targets: Target[] = [];
  for (let i = 0; i < plan.images; i++) {
    const draw = drawImage(plan.shape, i);
    if (draw.gone) continue;
    const { namespace } = draw;
    const { name, index, manifest, layers } = imageNames(plan, draw);
    targets.push({ namespace, image: name, index, manifest, layer: layers.at(-1)! });
  }
  if (targets.length < 80) throw new Error('too few records: use --records 2000 or more');
  await writeFile(path, JSON.stringify(targets));
}

function demandEqual(what: string, got: Readonly<Counts>, planned: Readonly<Counts>): void {
  for (const kind of Object.keys(planned) as (keyof Counts)[]) {
    if (got[kind] === planned[kind]) continue;
    throw new Error(`${what} ${got[kind]} ${kind}, but ${planned[kind]} were planned`);
  }
}

export async function measure(
  side: Side,
  plan: Plan,
  runs: number,
  /** How long each measurement may wait for the machine to become idle. */
  calmLimitMs: number,
  report: (step: string) => void,
): Promise<Measured> {
  let pressure = 0;
  const step = async (name: string): Promise<void> => {
    report(name);
    pressure = Math.max(pressure, (await waitUntilCalm(calmLimitMs)) ?? 0);
  };
  await step('load');
  const loaded = await side.load();
  demandEqual(`${side.name} loaded`, loaded.counts, plan.counts);
  const collected: Collected[] = [];
  for (let i = 0; i < runs; i++) {
    await side.renew();
    await step(`collect, run ${i + 1} of ${runs}`);
    const one = await side.collect(3);
    demandEqual(`${side.name} removed`, one.first.removed, plan.garbage);
    collected.push(one);
  }
  await step('open again');
  const reopened = await side.collect(0);
  const delays: Measured['delays'] = [];
  for (let i = 0; i < runs; i++) {
    await side.renew();
    await step(`writer delay, run ${i + 1} of ${runs}`);
    delays.push(await side.delay());
  }
  await side.renew();
  await step('operations');
  const rates = await side.rates();
  await step('operations with files');
  const files = await side.files();
  return { loaded, collected, reopened, delays, rates, files, pressure };
}

/** One of each, for a comparison of sizes. */
export async function measureBriefly(
  side: Side,
  plan: Plan,
  calmLimitMs: number,
  report: (step: string) => void,
): Promise<Brief> {
  const step = async (name: string): Promise<void> => {
    report(name);
    await waitUntilCalm(calmLimitMs);
  };
  await step('load');
  const loaded = await side.load();
  await side.renew();
  await step('collect');
  const collected = await side.collect(5);
  demandEqual(`${side.name} removed`, collected.first.removed, plan.garbage);
  await step('open again');
  const reopened = await side.collect(0);
  await side.renew();
  await step('writer delay');
  return { loaded, collected, reopened, delays: await side.delay() };
}
