/** `npm run bench`: which benchmark. Without a name, the stores and collections; `any-host`, `core`, `daemon` and `etcd` have their own. */
const [, , name] = process.argv;
const programs: Record<string, string> = {
  'any-host': './any-host/main.js',
  core: './core.js',
  daemon: './daemon/main.js',
  etcd: './etcd/main.js',
};
const program = programs[name ?? ''];
if (program !== undefined) process.argv.splice(2, 1);
await import(program ?? './stores.js');

export {};
