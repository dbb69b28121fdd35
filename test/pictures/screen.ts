/** A program on a terminal, and what is on its screen: enough of a VT100 for curses. */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { quoted } from '../../src/cli/output/printable.js';

const ROWS = 30;
const COLUMNS = 110;
const LOOK_MS = 20;
/** Machines of tests are busy. */
const WAIT_MS = 30_000;

export class Screen {
  readonly #child;
  #cells = Array.from({ length: ROWS }, () => new Array<string>(COLUMNS).fill(' '));
  #row = 0;
  #column = 0;
  #rest = '';
  readonly #ended: Promise<void>;

  constructor(words: readonly string[]) {
    const line = `stty rows ${ROWS} cols ${COLUMNS}; exec ${words.map(quoted).join(' ')}`;
    this.#child = spawn('script', ['-qec', line, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: { ...process.env, TERM: 'vt100', LC_ALL: 'C' },
    });
    this.#child.stdout.setEncoding('latin1').on('data', (text: string) => this.#draw(text));
    this.#ended = new Promise((resolve) => this.#child.on('close', () => resolve()));
  }

  /** Presses keys, and waits until the screen is as wanted; its text. */
  async press(keys: string, isWanted: (text: string) => boolean): Promise<string> {
    this.#child.stdin.write(keys);
    for (const deadline = performance.now() + WAIT_MS; ; ) {
      const text = this.#cells.map((row) => row.join('').trimEnd()).join('\n');
      if (isWanted(text)) return text;
      if (this.#child.exitCode !== null || performance.now() > deadline)
        throw new Error(`the program has ended, or does not show what is wanted:\n${text}`);
      await sleep(LOOK_MS);
    }
  }

  async close(keys: string): Promise<void> {
    this.#child.stdin.end(keys);
    await this.#ended;
  }

  #draw(text: string): void {
    let left = this.#rest + text;
    while (left !== '') {
      const [whole = '', sequence = ''] =
        /^(?:\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>78MDE])|[^\x1b])/.exec(left) ?? [];
      if (whole === '') break;
      left = left.slice(whole.length);
      if (sequence === '') this.#put(whole);
      else this.#move(sequence);
    }
    this.#rest = left;
  }

  #put(character: string): void {
    if (character === '\n') this.#row = Math.min(this.#row + 1, ROWS - 1);
    else if (character === '\r') this.#column = 0;
    else if (character === '\b') this.#column = Math.max(0, this.#column - 1);
    else if (character >= ' ') {
      const row = this.#cells[this.#row];
      if (row !== undefined && this.#column < COLUMNS) row[this.#column++] = character;
    }
  }

  #move(sequence: string): void {
    const [first = '', second = ''] = sequence.slice(1, -1).split(';');
    const n = Math.max(1, Number(first) || 0);
    const blank = (row: number, from: number, to = COLUMNS): void =>
      void this.#cells[row]?.fill(' ', from, to);
    const moves: Readonly<Record<string, () => void>> = {
      H: () => {
        [this.#row, this.#column] = [n - 1, Math.max(1, Number(second) || 0) - 1];
      },
      A: () => {
        this.#row -= n;
      },
      B: () => {
        this.#row += n;
      },
      C: () => {
        this.#column += n;
      },
      D: () => {
        this.#column -= n;
      },
      K: () => (first === '1' ? blank(this.#row, 0, this.#column + 1) : blank(this.#row, this.#column)),
      J: () => {
        blank(this.#row, this.#column);
        for (let row = this.#row + 1; row < ROWS; row++) blank(row, 0);
      },
    };
    if (sequence.startsWith('[')) moves[sequence.at(-1)!]?.();
  }
}
