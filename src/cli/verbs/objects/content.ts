/** `ebbtide content ls|info|cat|rm` */
import type { Command } from 'commander';
import { blobDigest, eachOf } from '../../digest-arguments.js';
import { bytes, labelText, shortTime } from '../../output/output.js';
import { listed, readVerb, standardOutput, storeVerb } from '../../runner.js';

export function content(program: Command): void {
  const command = program.command('content').description('content blobs of the namespace');

  listed(command.command('ls [filter...]'))
    .description('list blobs; filters like digest==sha256:… or labels.k==v')
    .option('--ingests', 'list unfinished ingests instead')
    .action(
      readVerb<{ ingests?: boolean }>(async ({ db, ctx, out }, filters, { ingests }) => {
        if (ingests) {
          out.rows(await db.content.listStatuses(ctx, ...filters), [
            { title: 'REF', value: (s) => s.ref },
            { title: 'OFFSET', value: (s) => bytes(s.offset), right: true },
            { title: 'TOTAL', value: (s) => (s.total ? bytes(s.total) : '?'), right: true },
            { title: 'STARTED', minor: true, whole: true, value: (s) => shortTime(s.startedAt) },
          ]);
          return;
        }
        const infos: Awaited<ReturnType<typeof db.content.info>>[] = [];
        await db.content.walk(
          ctx,
          (info) => {
            infos.push(info);
          },
          ...filters,
        );
        out.rows(infos, [
          { title: 'DIGEST', value: (i) => i.digest },
          { title: 'SIZE', value: (i) => bytes(i.size), right: true },
          { title: 'CREATED', minor: true, whole: true, value: (i) => shortTime(i.createdAt) },
          { title: 'LABELS', minor: true, value: (i) => labelText(i.labels) },
        ]);
      }),
    );

  command
    .command('info <digest>')
    .description('show one blob')
    .action(
      readVerb<object, [digest: string]>(async ({ db, ctx, out }, [text]) => {
        const info = await db.content.info(ctx, await blobDigest(db, ctx, text));
        out.object(info, () => {
          out.line(`digest    ${info.digest}`);
          out.line(`size      ${info.size} bytes`);
          out.line(`created   ${shortTime(info.createdAt)}`);
          out.line(`updated   ${shortTime(info.updatedAt)}`);
          for (const [k, v] of Object.entries(info.labels)) out.line(`label     ${k}=${v}`);
        });
      }),
    );

  command
    .command('cat <digest>')
    .description("write a blob's bytes to standard output")
    .action(
      readVerb<object, [digest: string]>(async ({ db, ctx, signal }, [text]) => {
        const digest = await blobDigest(db, ctx, text);
        await using reader = await db.content.readerAt(ctx, { digest });
        for await (const chunk of reader.stream()) {
          if (!(await standardOutput.send(chunk, signal))) break;
        }
      }),
    );

  command
    .command('rm <digest...>')
    .description('delete blobs from the namespace; the next collection removes the bytes')
    .action(
      storeVerb(async ({ db, ctx, out }, given) => {
        const digests = await eachOf(given, (text) => blobDigest(db, ctx, text));
        for (const digest of digests) await db.content.delete(ctx, digest);
        out.object({ removed: digests }, () => {
          for (const digest of digests) out.line(digest);
        });
      }),
    );
}
