/**
 * Debian's Chromium without a window, driven by the protocol of its developer tools over two pipes. One for a test file: its
 * start takes seconds.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { tempDir } from '../support/temp.js';

interface Message {
  id?: number;
  sessionId?: string;
  method?: string;
  params?: Record<string, unknown>;
  result?: Record<string, unknown>;
  error?: { message: string };
}

/** How long a page is waited for; machines of tests are busy. */
const WAIT_MS = 30_000;

export class Browser {
  readonly #child: ChildProcess;
  readonly #to: Writable;
  readonly #waiting = new Map<number, (message: Message) => void>();
  readonly #listeners = new Set<(message: Message) => void>();
  #last = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#to = child.stdio[3] as Writable;
    // What waits for a browser that has gone fails.
    child.on('exit', () => {
      for (const answer of this.#waiting.values()) answer({ error: { message: 'the browser has ended' } });
      this.#waiting.clear();
    });
    this.#to.on('error', () => undefined);
    let rest = '';
    (child.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0');
      rest = messages.pop()!;
      for (const message of messages) this.#take(JSON.parse(message) as Message);
    });
  }

  static async start(): Promise<Browser> {
    const dir = await tempDir();
    const child = spawn(
      'chromium',
      [
        ...['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'],
        ...['--disable-background-networking', '--disable-component-update', '--disable-extensions'],
        ...['--disable-crash-reporter', '--no-default-browser-check', '--mute-audio'],
        // The file of a test may load what is beside it, as speedscope does.
        ...['--allow-file-access-from-files', '--remote-debugging-pipe', `--user-data-dir=${dir}`],
        'about:blank',
      ],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], env: { ...process.env, HOME: dir } },
    );
    return new Browser(child);
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    const kill = setTimeout(() => this.#child.kill('SIGKILL'), WAIT_MS);
    this.#to.write(`${JSON.stringify({ id: ++this.#last, method: 'Browser.close' })}\0`);
    await ended;
    clearTimeout(kill);
  }

  listen(fn: (message: Message) => void): void {
    this.#listeners.add(fn);
  }

  async send(method: string, params: object = {}, sessionId?: string): Promise<Record<string, unknown>> {
    assert.ok(this.#child.exitCode === null, 'the browser has ended');
    const id = ++this.#last;
    const answer = new Promise<Message>((resolve) => this.#waiting.set(id, resolve));
    this.#to.write(`${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`);
    const { result, error } = await answer;
    assert.equal(error, undefined, `${method}: ${error?.message}`);
    return result ?? {};
  }

  #take(message: Message): void {
    if (message.id === undefined) for (const fn of this.#listeners) fn(message);
    else {
      this.#waiting.get(message.id)?.(message);
      this.#waiting.delete(message.id);
    }
  }

  /** A page of this address, loaded. */
  async open(url: string, { isDark = false, width = 1300, height = 900 } = {}): Promise<Page> {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, String(sessionId));
    await page.begin(isDark, width, height);
    await page.go(url);
    return page;
  }
}

export class Page {
  /** What it asked the network or the disk for, and what it complained about. */
  readonly requests: string[] = [];
  readonly complaints: string[] = [];
  readonly #browser: Browser;
  readonly #session: string;
  #loaded: () => void = () => undefined;

  constructor(browser: Browser, session: string) {
    this.#browser = browser;
    this.#session = session;
    browser.listen(({ sessionId, method, params = {} }) => {
      if (sessionId !== session) return;
      if (method === 'Page.loadEventFired') this.#loaded();
      if (method === 'Network.requestWillBeSent')
        this.requests.push(String((params.request as { url: string }).url));
      if (method === 'Log.entryAdded' || method === 'Runtime.exceptionThrown')
        this.complaints.push(JSON.stringify(params));
    });
  }

  #send(method: string, params: object = {}): Promise<Record<string, unknown>> {
    return this.#browser.send(method, params, this.#session);
  }

  async begin(isDark: boolean, width: number, height: number): Promise<void> {
    for (const domain of ['Page', 'Network', 'Log', 'Runtime']) await this.#send(`${domain}.enable`);
    const features = [{ name: 'prefers-color-scheme', value: isDark ? 'dark' : 'light' }];
    await this.#send('Emulation.setEmulatedMedia', { features });
    await this.#send('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: false,
    });
  }

  async go(url: string): Promise<void> {
    const loaded = new Promise<void>((resolve) => {
      this.#loaded = resolve;
    });
    await this.#send('Page.navigate', { url });
    const late = sleep(WAIT_MS, 'late', { ref: false });
    assert.notEqual(await Promise.race([loaded, late]), 'late', `${url} is not loaded`);
  }

  /** The value of an expression, or of its promise. */
  async value<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#send('Runtime.evaluate', {
      ...{ expression, awaitPromise: true, returnByValue: true },
    });
    assert.equal(exceptionDetails, undefined, JSON.stringify(exceptionDetails));
    return (result as { value: T }).value;
  }

  /** Until an expression is true; fails when it is not in time. */
  async until(expression: string): Promise<void> {
    const deadline = performance.now() + WAIT_MS;
    while (!(await this.value<boolean>(`Boolean(${expression})`))) {
      assert.ok(performance.now() < deadline, `it is not so: ${expression}`);
      await sleep(50);
    }
  }

  async press(...keys: string[]): Promise<void> {
    for (const key of keys) {
      const text = key.length === 1 ? { text: key } : key === 'Enter' ? { text: '\r' } : {};
      await this.#send('Input.dispatchKeyEvent', { type: 'keyDown', key, ...text });
      await this.#send('Input.dispatchKeyEvent', { type: 'keyUp', key });
    }
  }

  type(text: string): Promise<unknown> {
    return this.#send('Input.insertText', { text });
  }

  /** A PNG. */
  async picture(): Promise<Buffer> {
    const { data } = await this.#send('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(String(data), 'base64');
  }

  /** What a screen reader is told: role and name of each node. */
  async accessible(): Promise<{ role: string; name: string }[]> {
    const { nodes } = await this.#send('Accessibility.getFullAXTree');
    return (nodes as { ignored: boolean; role?: { value: string }; name?: { value: string } }[])
      .filter(({ ignored }) => !ignored)
      .map(({ role, name }) => ({ role: role?.value ?? '', name: name?.value ?? '' }));
  }
}
