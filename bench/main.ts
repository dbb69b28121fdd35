/**
 * `npm run bench`: which benchmark. Without a name, the stores and collections; `any-host…`, `core`, `daemon`, `etcd`, `last-use`, `lease`, `policy` and `unpack` have
 * their own. Each program runs when it is imported, and reads its options from `process.argv`.
 */
const programs: Readonly<Record<string, string>> = {
  'any-host': './any-host/main.js',
  'any-host-containerd': './any-host/containerd.js',
  'any-host-live': './any-host/live.js',
  'any-host-large': './any-host/large.js',
  'any-host-salvage': './any-host/salvage.js',
  core: './core.js',
  daemon: './daemon/main.js',
  etcd: './etcd/main.js',
  'last-use': './last-use.js',
  lease: './lease.js',
  policy: './policy.js',
  unpack: './unpack.js',
};
const name = process.argv[2]?.startsWith('-') === false ? process.argv.splice(2, 1)[0] : undefined;
const program = name === undefined ? './stores.js' : programs[name];
try {
  if (program === undefined) throw new Error(`no benchmark "${name}": ${Object.keys(programs).join(', ')}`);
  await import(program);
} catch (error) {
  const isUsage =
    program === undefined || (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS') === true;
  if (!isUsage) throw error;
  process.stderr.write(`bench: ${(error as Error).message}\n`);
  process.exitCode = 2;
}

export {};
