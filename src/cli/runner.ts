/**
 * How a verb runs: parses global options, opens and closes the store (or the connection to its daemon), turns
 * Ctrl-C into an abort, and errors into one sentence and an exit code. Every verb registers itself with one
 * of these functions.
 */
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { CallContext } from '../context.js';
import { DB } from '../db.js';
import { snapshotterNames } from '../db-options.js';
import { EbbtideError, failedPrecondition, invalidArgument, isKind, kindOf, notFound } from '../errors.js';
import { validateIdentifier } from '../model/identifiers.js';
import type { StringMap } from '../model/records.js';
import { NoStore } from '../no-store.js';
import { openDB } from '../open.js';
import { meant, messageOf } from '../system/system-errors.js';
import { advised } from './advice.js';
import { checkPaths } from './check-paths.js';
import { type EtcdOptions, etcdConfig } from './etcd-options.js';
import { exitCodes } from './exit-codes.js';
import { Output, type OutputOptions } from './output/output.js';
import { Progress } from './output/progress.js';
import { StandardOutput } from './output/standard-output.js';
import { openForReading } from './read-only.js';
import { daemonOf, findDaemon, orOlderDaemon } from './remote/find-daemon.js';
import type { Store } from './store.js';

export interface GlobalOptions extends EtcdOptions {
  root: string;
  namespace: string;
  /** Another program's root, which is only read. */
  containerdRoot?: string;
  /** Socket of a daemon; also EBBTIDE_ADDRESS. */
  address?: string;
  readOnly?: boolean;
  /** Carrier of the graph core; also EBBTIDE_CORE. */
  core?: string;
  json?: boolean;
}

export interface Env {
  options: GlobalOptions;
  out: Output;
  progress: Progress;
  signal: AbortSignal;
  /** Handles SIGHUP, which otherwise stops the verb. */
  onHangup: (take: () => void) => void;
}
export interface StoreEnv extends Env {
  db: Store;
  ctx: CallContext;
}

/** The root without `--root`; empty, which no verb takes, for a user without a home directory. */
export function defaultRoot(): string {
  if (process.env.EBBTIDE_ROOT) return process.env.EBBTIDE_ROOT;
  if (process.getuid?.() === 0) return '/var/lib/ebbtide';
  const { XDG_DATA_HOME = '' } = process.env;
  // A relative path is to be ignored, by its specification: it would be another store in each directory.
  if (isAbsolute(XDG_DATA_HOME)) return join(XDG_DATA_HOME, 'ebbtide');
  const home = homeDirectory();
  return isAbsolute(home) ? join(home, '.local', 'share', 'ebbtide') : '';
}

function homeDirectory(): string {
  try {
    return homedir();
  } catch {
    // Neither in the environment nor in the list of users.
    return '';
  }
}

export const standardOutput = new StandardOutput((error) => {
  process.exitCode = report(error);
});

/** Options of the verbs that list. */
export const listed = (command: Command): Command =>
  command
    .addOption(new Option('-q, --quiet', 'names only, one per line').helpGroup('Output:'))
    .addOption(
      new Option(
        '--format <how>',
        "table, json, or a line for each: '{name} {labels.a}', with the fields of json",
      ).helpGroup('Output:'),
    );

const DEFAULT_SNAPSHOTTER = 'overlayfs';

export const snapshotterOption = (): Option =>
  new Option('-s, --snapshotter <name>', 'snapshotter (EBBTIDE_SNAPSHOTTER)').default(
    process.env.EBBTIDE_SNAPSHOTTER ?? DEFAULT_SNAPSHOTTER,
    DEFAULT_SNAPSHOTTER,
  );

type Action<O> = (...args: [...string[], O, Command]) => Promise<void>;

/** Arguments of a verb. REQUIRES: as its usage says, `<name>` a string and `[name]` an optional one; the parser makes sure of them. */
type Arguments = readonly (string | undefined)[];

/** Wraps a verb that needs no store. Verb arguments come as an array, then the verb's own options. */
export function verb<O extends object, A extends Arguments = string[]>(
  fn: (env: Env, args: A, options: O) => Promise<void>,
  { readsAnyRoot = false } = {},
): Action<O> {
  return async (...raw) => {
    const command = raw.at(-1) as Command;
    const given = command.optsWithGlobals<GlobalOptions & O>();
    const options: GlobalOptions & O & { snapshotter?: string } = {
      ...given,
      root: given.root === '' ? '' : resolve(given.root),
    };
    if (given.containerdRoot !== undefined) {
      if (!isNamespaceGiven(command)) options.namespace = EVERY_NAMESPACE;
      if (options.snapshotter !== undefined && !isSnapshotterGiven(command))
        options.snapshotter = THEIR_SNAPSHOTTER;
    }
    if (given.core !== undefined) process.env.EBBTIDE_CORE = given.core;
    checkPaths(command);
    const args = command.processedArgs.flat().filter((a): a is string => typeof a === 'string');
    await guarded(options, command, async (env) => {
      if (given.containerdRoot !== undefined && !readsAnyRoot) throw notThere(command.name());
      await fn(env, args as readonly string[] as A, options);
    });
  };
}

/** Another program's objects are looked up in all namespaces unless one was named. */
const EVERY_NAMESPACE = '';
const isNamespaceGiven = (command: Command): boolean =>
  process.env.EBBTIDE_NAMESPACE !== undefined ||
  command.getOptionValueSourceWithGlobals('namespace') !== 'default';

/**
 * Another program's root may have another snapshotter than the usual one: where it has one, that one is meant. Nobody can give this as
 * an argument.
 */
const THEIR_SNAPSHOTTER = '\0';
const isSnapshotterGiven = (command: Command): boolean =>
  process.env.EBBTIDE_SNAPSHOTTER !== undefined || command.getOptionValueSource('snapshotter') !== 'default';

const notThere = (name: string): EbbtideError =>
  invalidArgument(`${name} does not work on another program's root`, {
    object: name,
    remedy: 'leave out --containerd-root; --root names a store of ebbtide',
  });

/** What a verb needs of the store before it runs. */
export interface Needs {
  /**
   * Creates the store if there is none, and prints that. Other verbs fail with NotFound and leave the disk
   * unchanged.
   */
  creates?: boolean;
  /** NotFound, before anything is created, unless the store has this snapshotter. */
  snapshotter?: string | undefined;
  /** The verb changes nothing, so it works on a read-only store too. */
  reads?: boolean;
  /** The verb covers the whole store, so an unknown namespace is not reported. */
  allNamespaces?: boolean;
}

/**
 * Wraps a verb that works on the store, which is opened before and closed after it in any case. If `needs` is
 * a function it also checks the arguments: what it throws comes before the store is opened.
 */
export function storeVerb<O extends object, A extends Arguments = string[]>(
  fn: (env: StoreEnv, args: A, options: O) => Promise<void>,
  needs: Needs | ((options: O, args: A) => Needs) = {},
): Action<O> {
  return verb<O, A>(
    (env, args, options) =>
      withStore(env, typeof needs === 'function' ? needs(options, args) : needs, (storeEnv, snapshotter) =>
        fn(storeEnv, args, snapshotter === undefined ? options : { ...options, snapshotter }),
      ),
    { readsAnyRoot: true },
  );
}

/** The same for a verb that changes nothing. */
export const readVerb = <O extends object, A extends Arguments = string[]>(
  fn: (env: StoreEnv, args: A, options: O) => Promise<void>,
  needs: Needs | ((options: O, args: A) => Needs) = {},
): Action<O> =>
  storeVerb<O, A>(fn, (options, args) => ({
    ...(typeof needs === 'function' ? needs(options, args) : needs),
    reads: true,
  }));

/**
 * Opens the store, runs `fn`, closes the store. Prints a notice when the namespace is unknown, which explains
 * an empty result.
 */
export async function withStore(
  env: Env,
  needs: Needs,
  fn: (env: StoreEnv, snapshotter?: string) => Promise<void>,
): Promise<void> {
  const { options, signal, out } = env;
  const isForeign = options.containerdRoot !== undefined;
  if (!isForeign && needs.allNamespaces !== true) validateIdentifier(options.namespace, 'namespace');
  await using db =
    options.containerdRoot === undefined
      ? await openStore(options, needs, (text) => out.notice(text))
      : await openForeign(options.containerdRoot, needs, env);
  const snapshotter =
    needs.snapshotter === undefined ? undefined : snapshotterIn(db.snapshotters().keys(), needs.snapshotter);
  const { namespace } = options;
  try {
    await fn({ ...env, db, ctx: { namespace, signal } }, snapshotter);
  } finally {
    if (needs.allNamespaces !== true && namespace !== EVERY_NAMESPACE)
      await hintAtNamespaces(db, namespace, out).catch(() => undefined);
  }
}

async function hintAtNamespaces(db: Store, namespace: string, out: Output): Promise<void> {
  const known = await db.namespaces.list({});
  if (known.length === 0 || known.includes(namespace)) return;
  const shown = known.slice(0, NAMESPACES_SHOWN).join(', ');
  const more = known.length > NAMESPACES_SHOWN ? ' and others' : '';
  out.notice(`there is no namespace "${namespace}" yet; there are: ${shown}${more} (-n chooses)`);
}
const NAMESPACES_SHOWN = 10;

/** @param wanted the usual one, or the only one there is, when it is `THEIR_SNAPSHOTTER` */
function snapshotterIn(known: Iterable<string>, wanted: string): string {
  const names = [...known];
  const only = names.length === 1 ? names[0] : undefined;
  const name = wanted === THEIR_SNAPSHOTTER ? (only ?? DEFAULT_SNAPSHOTTER) : wanted;
  if (names.includes(name)) return name;
  throw notFound(`there is no snapshotter "${name}"`, {
    object: name,
    remedy: names.length === 0 ? 'the root has none' : `there are: ${names.join(', ')} (-s chooses)`,
  });
}

/** Loaded on demand. Prints a notice for what cannot be shown in full. */
async function openForeign(root: string, { creates = false }: Needs, { out, signal }: Env): Promise<Store> {
  const [{ ForeignStore }, { refusal }] = await Promise.all([
    import('./foreign-store.js'),
    import('../any-host/refusals.js'),
  ]);
  if (creates) throw refusal('making or filling a store', root);
  const store = await ForeignStore.open(root, signal);
  for (const notice of store.parts.notices) out.notice(notice);
  return store;
}

/**
 * The daemon that was named, or that has the root; else the root itself. With `--read-only` always the root.
 * `notice` is called with messages for the user.
 */
async function openStore(
  options: GlobalOptions,
  { creates = false, snapshotter, reads = false }: Needs,
  notice: (text: string) => void,
): Promise<Store> {
  const { root, readOnly = false } = options;
  if (readOnly) checkReadOnly(options, reads);
  // First, because a user of the daemon may not be allowed to read the root.
  const daemon = await daemonOf(options);
  if (daemon !== undefined) return daemon;
  const etcd = etcdConfig(options);
  try {
    if (snapshotter !== undefined) snapshotterIn(snapshotterNames, snapshotter);
    // A collection requested by hand runs on this host.
    const given = { root, ...(etcd && { etcd, enableEtcdGC: true }), ...(readOnly && { readOnly }) };
    const open = reads ? openForReading(given, notice) : openDB({ ...given, create: false });
    const found = await open.catch((error: unknown) => {
      if (error instanceof NoStore) return error;
      throw error;
    });
    if (found instanceof DB) return found;
    if (!creates) throw found;
    const db = await openDB(given);
    notice(`created a store at ${root}`);
    return db;
  } catch (error) {
    // A daemon may have been starting.
    const late = isKind(error, 'Unavailable') && !readOnly ? await findDaemon(root) : undefined;
    if (late === undefined) throw await orOlderDaemon(error, root);
    return late;
  }
}

function checkReadOnly({ address }: GlobalOptions, reads: boolean): void {
  if (!reads) {
    throw failedPrecondition('the verb changes the store, and --read-only was given', {
      remedy: 'leave --read-only out',
    });
  }
  if (address !== undefined) {
    throw invalidArgument('--read-only reads the root itself, and --address names a daemon', {
      remedy: 'leave one of them out',
    });
  }
}

async function guarded(
  options: GlobalOptions & OutputOptions,
  command: Command,
  fn: (env: Env) => Promise<void>,
): Promise<void> {
  const abort = new AbortController();
  let stoppedBy: NodeJS.Signals = 'SIGINT';
  let hangup: (() => void) | undefined;
  const onHangup = (take: () => void): void => {
    hangup = take;
  };
  const interrupt = (name: NodeJS.Signals): void => {
    if (name === 'SIGHUP' && hangup !== undefined) {
      hangup();
      return;
    }
    // On the second signal the process ends; the store survives a kill at any moment. An exit would wait for
    // threads that are stuck in a read; the signal's default action does not.
    if (abort.signal.aborted) {
      for (const one of STOPPING) process.off(one, interrupt);
      process.kill(process.pid, name);
      return;
    }
    process.stderr.write('ebbtide: stopping; repeat to stop at once\n');
    stoppedBy = name;
    abort.abort();
  };
  for (const name of STOPPING) process.on(name, interrupt);
  const progress = new Progress();
  try {
    const out = new Output(options, standardOutput);
    // From an unset variable; must not mean the current directory.
    if (options.root === '')
      throw invalidArgument('the root is empty', { remedy: 'name a directory with --root' });
    await fn({ options, out, progress, signal: abort.signal, onHangup });
  } catch (error) {
    progress.end();
    process.exitCode = report(advised(meant(error), command), options.json);
    // The store is closed; only a read that nothing can end may keep the process.
    if (abort.signal.aborted) setTimeout(() => process.kill(process.pid, stoppedBy), STUCK_MS).unref();
  } finally {
    progress.end();
    for (const name of STOPPING) process.off(name, interrupt);
  }
}

/** How long an interrupted process may take to end by itself. */
const STUCK_MS = 500;

/** A terminal that goes away stops a verb as Ctrl-C does. The daemon handles SIGHUP itself. */
const STOPPING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Prints an error: one sentence with its remedy, or a line of JSON. Returns the exit code. */
export function report(thrown: unknown, isJson = false): number {
  const error = meant(thrown);
  const kind = kindOf(error);
  const message = messageOf(error);
  const { object, remedy }: Partial<EbbtideError> = error instanceof EbbtideError ? error : {};
  if (isJson) {
    process.stderr.write(`${JSON.stringify({ error: { kind, message, object, remedy } })}\n`);
    return exitCodes[kind];
  }
  process.stderr.write(`ebbtide: ${message} (${kind})\n`);
  if (remedy) process.stderr.write(`  ${remedy}\n`);
  if (kind === 'Unknown' && process.env.EBBTIDE_DEBUG && error instanceof Error) {
    const origin = error.cause instanceof Error ? error.cause : error;
    process.stderr.write(`${origin.stack}\n`);
  }
  return exitCodes[kind];
}

/** Parser for repeatable `--label key=value`. */
export function collectLabel(text: string, sofar: Record<string, string> = {}): Record<string, string> {
  const label = splitLabel(text);
  if (label === undefined) throw new InvalidArgumentError(NO_LABEL);
  return { ...sofar, [label[0]]: label[1] };
}

/** Labels of `label OBJECT key=value…` arguments; `key=` removes. */
export function labelArguments(args: readonly string[]): StringMap {
  const labels = args.map((text) => {
    const label = splitLabel(text);
    if (label === undefined)
      throw invalidArgument(`"${text}" is not a valid label: ${NO_LABEL}`, { object: text });
    return label;
  });
  return Object.fromEntries(labels);
}

const NO_LABEL = 'a label is key=value';

function splitLabel(text: string): [string, string] | undefined {
  const at = text.indexOf('=');
  return at > 0 ? [text.slice(0, at), text.slice(at + 1)] : undefined;
}
