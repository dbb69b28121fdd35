/**
 * `ebbtide synth`: creates a store of a given number of records, shaped like a dense container host, for
 * experiments.
 */
import { type Command, InvalidArgumentError } from 'commander';
import { DB } from '../../../db.js';
import { failedPrecondition } from '../../../errors.js';
import { loadSynth } from '../../../synth/load.js';
import { denseHost, planFor, type Shape, sum } from '../../../synth/shape.js';
import { bytes, duration } from '../../output/output.js';
import { storeVerb } from '../../runner.js';

const DEFAULT_RECORDS = 100_000;

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('must be a number');
  return value;
}

/** `1000`, `100k` or `1m`. */
function recordCount(text: string): number {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([km]?)$/i.exec(text) ?? [];
  if (number === undefined) throw new InvalidArgumentError('must be a number, like 1000, 100k or 1m');
  return Math.round(Number(number) * ({ k: 1000, m: 1_000_000 }[unit.toLowerCase()] ?? 1));
}

export function synth(program: Command): void {
  const command = program
    .command('synth')
    .description('fill an empty store with the records of a dense host: records only, no bytes')
    .option(
      '--records <n>',
      'number of records, exceeded by less than one image',
      recordCount,
      DEFAULT_RECORDS,
    )
    .option('--seed <text>', 'the same seed gives the same store', denseHost.seed)
    .option('--garbage <share>', 'fraction of images that are removed', number, denseHost.garbage)
    .option('--layers <n>', 'layers of an image', number, denseHost.layers)
    .option('--shared <share>', 'fraction of layers that come from a base', number, denseHost.shared)
    .option('--images-per-base <n>', 'images that share a base', number, denseHost.imagesPerBase)
    .option('--containers <n>', 'containers for each image', number, denseHost.containers)
    .option('--leases <n>', 'leases for each image', number, denseHost.leases)
    .option('--ingests <n>', 'unfinished uploads for each image', number, denseHost.ingests)
    .option('--namespaces <n>', 'number of namespaces', number, denseHost.namespaces);
  command.action(
    storeVerb<Partial<Shape> & { records: number }>(
      async ({ db, out, progress, signal }, _args, options) => {
        if (!(db instanceof DB)) {
          throw failedPrecondition('a daemon has the store', {
            remedy: 'stop it first, or name another --root',
          });
        }
        const plan = planFor(options.records, shapeOf(options));
        const started = performance.now();
        const counts = await loadSynth(db.engine, plan, {
          signal,
          progress: (done, total) => progress.count('loading records', done, { total }),
        });
        const durationMs = performance.now() - started;
        const { fileBytes } = db.engine.stats();
        const records = sum(counts);
        out.object(
          { records, counts, garbage: plan.garbage, edges: plan.edges, fileBytes, durationMs },
          () => {
            out.line(`${records} records in ${duration(durationMs)}, ${bytes(fileBytes)}`);
            for (const [kind, n] of Object.entries(counts)) out.line(`  ${kind.padEnd(11)} ${n}`);
            out.line(`one collection removes ${sum(plan.garbage)} of them`);
          },
        );
      },
      { creates: true, allNamespaces: true },
    ),
  );
}

/** The given options, with the dense host as default. */
function shapeOf(options: Partial<Shape>): Shape {
  const { seed, garbage, layers, shared, imagesPerBase, containers, leases, ingests, namespaces } = options;
  const given = { seed, garbage, layers, shared, imagesPerBase, containers, leases, ingests, namespaces };
  return { ...denseHost, ...Object.fromEntries(Object.entries(given).filter(([, v]) => v !== undefined)) };
}
