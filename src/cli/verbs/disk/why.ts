/** `ebbtide why OBJECT`: what keeps an object, or that it is garbage. */
import { type Command, Option } from 'commander';
import type { CacheRecord } from '../../../any-host/build-cache.js';
import { type ObjectKind, objectKinds } from '../../../gc/report/objects.js';
import type { LeaseOwner, Why, WhyStep } from '../../../gc/report/why.js';
import { Label } from '../../../model/labels.js';
import type { Cached } from '../../foreign-store.js';
import { whyDocument } from '../../output/documents.js';
import { bytes, labelText, type Output, printable, shortTime } from '../../output/output.js';
import { readVerb } from '../../runner.js';

interface Options {
  all?: boolean;
  kind?: ObjectKind;
}

export function why(program: Command): void {
  program
    .command('why <object>')
    .description('what keeps an object: the shortest path from a root; or that it is garbage')
    .option('--all', 'a path from every root, not only from a nearest one')
    .addOption(new Option('--kind <kind>', 'only objects of this kind').choices([...objectKinds]))
    .addHelpText(
      'after',
      '\nOBJECT is a digest or its beginning (4 hex digits at least), an image, container, lease, sandbox or mount,' +
        '\nthe ref of an ingest, or a snapshot: KEY or SNAPSHOTTER/KEY.',
    )
    .action(
      readVerb<Options, [name: string]>(async ({ db, ctx, out }, [name], { all, kind }) => {
        const result = await db.why(ctx, { name: name, kind }, { all: all === true });
        out.object(whyDocument(result), () => print(out, result));
      }),
    );
}

function print(out: Output, { object, state, paths, since, goes, keptUntil }: Why): void {
  out.line(printable(`${object.kind} ${object.key} is ${state}`));
  if (since) {
    const meaning = since.meaning === 'expired' ? 'expired' : 'its record last changed';
    out.line(`  since     ${shortTime(since.at)} at the earliest (${meaning})`);
  }
  if (goes) out.line(`  goes      ${goes}`);
  if (keptUntil !== undefined)
    out.line(`  kept      until ${shortTime(keptUntil)}, when the last root expires`);
  for (const path of paths) {
    out.line();
    for (const [depth, step] of path.entries())
      out.line(printable(`  ${'  '.repeat(depth)}${stepText(step)}`));
  }
}

function stepText(step: WhyStep & Cached): string {
  const { kind, key, via, name, expiresAt, labels, createdAt, cache } = step;
  const parts = [`${kind} ${key}`];
  if (via === 'root') parts.push(name === '' ? 'a root' : `a root by label ${name}`);
  else if (via === 'collector') parts.push('in use according to a collector');
  else if (via === 'back label') parts.push(`by its own label ${name}`);
  else if (via === 'lease') parts.push('kept by the lease');
  else if (via === 'flat lease') parts.push('kept by the lease, without what it refers to');
  else parts.push(`by ${via} ${name}`.trimEnd());
  if (createdAt !== undefined) parts.push(`created ${shortTime(createdAt)}`);
  if (expiresAt !== undefined) parts.push(`expires ${shortTime(expiresAt)}`);
  else if (kind === 'lease') parts.push('never expires');
  if (step.host !== undefined) parts.push(ownerText(step.host));
  // The expiry is printed already.
  const shown = Object.entries(labels ?? {}).filter(([label]) => label !== Label.gcExpire);
  if (shown.length > 0) parts.push(labelText(Object.fromEntries(shown)));
  if (cache !== undefined) parts.push(cacheText(cache));
  return parts.join('  ');
}

function cacheText({ description, bytes: size, usageCount, lastUsedAt, steps }: CacheRecord): string {
  const parts = [`build cache "${description}"`];
  if (size !== undefined) parts.push(bytes(size));
  parts.push(`uses ${usageCount}`);
  if (lastUsedAt !== undefined) parts.push(`last ${shortTime(lastUsedAt)}`);
  parts.push(`result of steps ${steps}`);
  return parts.join(', ');
}

/** The host that owns a lease. */
function ownerText({ id, state, seen }: LeaseOwner): string {
  if (state !== 'gone') return `of host ${id}`;
  const since = seen === undefined ? '' : ` since ${shortTime(seen)}`;
  return `of host ${id}, which is gone${since} (ebbtide hosts rm ${id})`;
}
