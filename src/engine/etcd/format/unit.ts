/**
 * The form in which a unit's changes are staged in etcd. Called by mirror.ts and commit.ts; pure.
 */

/** `p`ut a key with value `v`, `d`elete a key, or `w`ipe the links of an owner. */
export type StagedChange = { p: string; v: string } | { d: string } | { w: string };

export const CHUNK_BYTES = 512 * 1024;

/** Cuts changes into texts of about CHUNK_BYTES each; a single change may be larger. */
export function stage(changes: readonly StagedChange[]): string[] {
  const chunks: string[] = [];
  let lines: string[] = [];
  let size = 0;
  for (const change of changes) {
    const line = JSON.stringify(change);
    if (size + line.length > CHUNK_BYTES && lines.length > 0) {
      chunks.push(lines.join('\n'));
      lines = [];
      size = 0;
    }
    lines.push(line);
    size += Buffer.byteLength(line) + 1;
  }
  if (lines.length > 0) chunks.push(lines.join('\n'));
  return chunks;
}

export const parseStaged = (chunk: Buffer): StagedChange[] =>
  chunk
    .toString('utf8')
    .split('\n')
    .map((line) => JSON.parse(line) as StagedChange);
