/** `ebbtide snapshots ls|info|prepare|view|commit|mounts|mount|umount|rm` */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Mount } from '../../../backends/contract.js';
import { compact, mountAt, unmountAt } from '../../../backends/mounts.js';
import { present } from '../../../errors.js';
import { eachOf, snapshotKey } from '../../digest-arguments.js';
import { snapshotDocument } from '../../output/documents.js';
import { bytes, labelText, type Output, shortTime } from '../../output/output.js';
import { quoted } from '../../output/printable.js';
import {
  collectLabel,
  listed,
  type Needs,
  readVerb,
  snapshotterOption,
  storeVerb,
  verb,
} from '../../runner.js';
import type { SnapshotStore, Store } from '../../store.js';

interface Options {
  snapshotter: string;
}
interface LabelOptions extends Options {
  label?: Record<string, string>;
}

/** REQUIRES: the verb has declared the snapshotter in its needs. */
export const snapshotterOf = (db: Store, name: string): SnapshotStore =>
  present(db.snapshotter(name), `snapshotter ${name}`);

const needed = ({ snapshotter }: Options): Needs => ({ snapshotter });

/**
 * Prints mounts as mount commands. The paths of many layers fit into a page only relative to their directory.
 */
export function printMounts(out: Output, mounts: readonly Mount[], target = '<target>'): void {
  out.object(mounts, () => {
    for (const { type, source, options: given } of mounts) {
      const { options, base } = compact(given);
      const at = target.startsWith('<') ? target : quoted(resolve(target));
      const command = `mount -t ${type} ${quoted(source)} ${at} -o ${quoted(options.join(','))}`;
      // Not folded, so that it can be copied.
      out.text(`${base === '' ? command : `(cd ${quoted(base)} && ${command})`}\n`);
    }
  });
}

export function snapshots(program: Command): void {
  const command = program.command('snapshots').description('snapshots of the namespace');
  const sub = (usage: string, description: string): Command =>
    command.command(usage).description(description).addOption(snapshotterOption());
  const labelled = (usage: string, description: string): Command =>
    sub(usage, description).option('--label <key=value>', 'label (repeatable)', collectLabel);

  listed(sub('ls [filter...]', 'list snapshots; filters like kind==active or parent==x')).action(
    readVerb<Options>(async ({ db, ctx, out }, filters, { snapshotter }) => {
      const infos: ReturnType<typeof snapshotDocument>[] = [];
      await snapshotterOf(db, snapshotter).walk(
        ctx,
        (info) => {
          infos.push(snapshotDocument(info));
        },
        ...filters,
      );
      out.rows(infos, [
        { title: 'KEY', value: (i) => i.key },
        { title: 'PARENT', value: (i) => i.parent },
        { title: 'KIND', value: (i) => i.kind },
        { title: 'LABELS', minor: true, value: (i) => labelText(i.labels) },
      ]);
    }, needed),
  );

  sub('info <key>', 'show one snapshot and its disk usage').action(
    readVerb<Options, [key: string]>(async ({ db, ctx, out }, [key], { snapshotter }) => {
      const store = snapshotterOf(db, snapshotter);
      const name = await snapshotKey(db, ctx, snapshotter, key);
      const info = snapshotDocument(await store.stat(ctx, name));
      const usage = await store.usage(ctx, name);
      out.object({ ...info, usage }, () => {
        out.line(`key       ${info.key}`);
        out.line(`kind      ${info.kind}`);
        out.line(`parent    ${info.parent || '-'}`);
        out.line(`usage     ${bytes(usage.size)} in ${usage.inodes} inodes`);
        out.line(`created   ${shortTime(info.createdAt)}`);
        out.line(`updated   ${shortTime(info.updatedAt)}`);
        for (const [k, v] of Object.entries(info.labels)) out.line(`label     ${k}=${v}`);
      });
    }, needed),
  );

  for (const [name, text] of [
    ['prepare', 'make a writable snapshot'],
    ['view', 'make a read-only snapshot'],
  ] as const) {
    labelled(`${name} <key> [parent]`, `${text}; prints how to mount it`).action(
      storeVerb<LabelOptions, [key: string, parent?: string]>(
        async ({ db, ctx, out }, [key, parent], { snapshotter, label }) => {
          const store = snapshotterOf(db, snapshotter);
          const below = parent === undefined ? '' : await snapshotKey(db, ctx, snapshotter, parent);
          printMounts(out, await store[name](ctx, key, below, { labels: label }));
        },
        needed,
      ),
    );
  }

  labelled('commit <name> <key>', 'commit a writable snapshot').action(
    storeVerb<LabelOptions, [name: string, key: string]>(
      async ({ db, ctx, out }, [name, key], { snapshotter, label }) => {
        await snapshotterOf(db, snapshotter).commit(ctx, name, key, { labels: label });
        out.object({ key: name }, () => out.line(name));
      },
      needed,
    ),
  );

  sub('mounts <key> [target]', 'print how to mount a snapshot').action(
    readVerb<Options, [key: string, target?: string]>(
      async ({ db, ctx, out }, [key, target], { snapshotter }) => {
        const name = await snapshotKey(db, ctx, snapshotter, key);
        printMounts(out, await snapshotterOf(db, snapshotter).mounts(ctx, name), target);
      },
      needed,
    ),
  );

  sub('mount <key> <target>', 'mount a snapshot on a directory; needs root').action(
    storeVerb<Options, [key: string, target: string]>(
      async ({ db, ctx, out }, [key, target], { snapshotter }) => {
        const name = await snapshotKey(db, ctx, snapshotter, key);
        mountAt(await snapshotterOf(db, snapshotter).mounts(ctx, name), target);
        out.object({ key: name, target: resolve(target) }, () => out.line(resolve(target)));
      },
      needed,
    ),
  );

  command
    .command('umount <target>')
    .description('unmount a snapshot from a directory')
    .action(
      verb<object, [target: string]>(async ({ out }, [target]) => {
        unmountAt(target);
        out.object({ target: resolve(target) }, () => out.line(resolve(target)));
      }),
    );

  sub('rm <key...>', 'delete snapshots; the next collection frees their disk space').action(
    storeVerb<Options>(async ({ db, ctx, out }, given, { snapshotter }) => {
      const keys = await eachOf(given, (key) => snapshotKey(db, ctx, snapshotter, key));
      for (const key of keys) await snapshotterOf(db, snapshotter).remove(ctx, key);
      out.object({ removed: keys }, () => {
        for (const key of keys) out.line(key);
      });
    }, needed),
  );
}
