/**
 * Makes the outputs of two servers comparable: takes out what must differ (times, private paths, versions) and
 * nothing else. Snapshot directory numbers become their order of appearance, so that the same directory mentioned
 * twice still has to be the same. Pure.
 */

export interface Places {
  /** Root directories of the server and of its back ends. */
  roots: readonly string[];
  /** The session's working directory. */
  work: string;
}

export class Normaliser {
  readonly #places: Places;
  readonly #numbers = new Map<string, number>();

  constructor(places: Places) {
    this.#places = places;
  }

  lines(text: string): string[] {
    const lines = text.split('\n').map((line) => this.line(line));
    if (lines.at(-1) === '') lines.pop();
    return lines;
  }

  line(text: string): string {
    return (
      this.#paths(text)
        .replace(/\bimport-\d{4}-\d\d-\d\d\b/g, 'import-<day>')
        .replace(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)/g, '<time>')
        .replace(/\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \+0000 UTC\b/g, '<time>')
        .replace(/\b(less than a second|about an? \w+|\d+ (seconds?|minutes?))( ago)?\b/gi, '<age>')
        // ctr names what it makes for itself by clock and chance.
        .replace(/\b(extract|view|containerd-mount)-?\d+(-[\w-]{4})?/g, '$1-<chance>')
        // A lease without a given id: the nanoseconds of the clock, with as many digits as they have, and three random bytes.
        .replace(/(?<=^|[\s"/])\d{1,9}-[\w-]{4}(?=[\s",]|$)/g, '<lease>')
        .replace(/\b(elapsed|done): [\d.]+ ?(ms|µs|s|m)\b/g, '$1: <duration>')
        .replace(/\btotal: .*$/g, 'total: <rate>')
        .replace(/^(\s*(Version|Revision|UUID|Go version):).*/, '$1 <version>')
        // Columns are as wide as what was taken out of them.
        .replace(/[ \t]+/g, ' ')
        // Ours are named, whatever the kernel's defaults are (docs/conformance.md).
        .replace(/,(metacopy|redirect_dir)=off\b/g, '')
        // ctr prints labels in the order of a Go map.
        .replace(/\S+=\S*,\S+/g, (labels) => labels.split(',').sort().join(','))
        .trimEnd()
    );
  }

  #paths(text: string): string {
    const { roots, work } = this.#places;
    let out = text;
    for (const root of roots) {
      const snapshot = new RegExp(
        `${literal(root)}/[^\\s:,"]*?(native|overlayfs)[^\\s:,"]*?/snapshots/([^\\s:,"/]+)`,
        'g',
      );
      out = out.replace(
        snapshot,
        (_, name: string, id: string) => `<${name}>/snapshots/<${this.#number(name, id)}>`,
      );
    }
    out = out.replaceAll(work, '<work>');
    for (const root of roots) out = out.replaceAll(root, '<root>');
    return out;
  }

  #number(snapshotter: string, id: string): number {
    const key = `${snapshotter}/${id}`;
    const number = this.#numbers.get(key) ?? this.#numbers.size + 1;
    this.#numbers.set(key, number);
    return number;
  }
}

const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

const kinds = [
  'not found',
  'already exists',
  'failed precondition',
  'invalid argument',
  'unavailable',
  'not implemented',
  'context canceled',
  'unknown',
];

/** The kind of an error line: what programs decide by. The words before it are for people. */
export function errorKind(line: string): string {
  const found = kinds.find((kind) => line.replace(/"$/, '').endsWith(kind) || line.includes(`: ${kind}:`));
  return found === undefined ? line : `error: ${found}`;
}

export interface LineDifference {
  side: 'containerd' | 'ours';
  line: string;
}

/** Lines that only one side has, by a longest common subsequence. */
export function lineDifferences(theirs: readonly string[], ours: readonly string[]): LineDifference[] {
  const rows = theirs.length;
  const columns = ours.length;
  const longest = Array.from({ length: rows + 1 }, () => new Uint32Array(columns + 1));
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      longest[i]![j] =
        theirs[i] === ours[j]
          ? longest[i + 1]![j + 1]! + 1
          : Math.max(longest[i + 1]![j]!, longest[i]![j + 1]!);
    }
  }
  const differences: LineDifference[] = [];
  let i = 0;
  let j = 0;
  while (i < rows || j < columns) {
    if (i < rows && j < columns && theirs[i] === ours[j]) {
      i++;
      j++;
    } else if (j >= columns || (i < rows && longest[i + 1]![j]! >= longest[i]![j + 1]!)) {
      differences.push({ side: 'containerd', line: theirs[i++]! });
    } else {
      differences.push({ side: 'ours', line: ours[j++]! });
    }
  }
  return differences;
}
