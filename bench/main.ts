/** `npm run bench`: which benchmark. Without a name, the stores and collections; `daemon`, `etcd` and `any-host` have their own. */
const [, , name] = process.argv;
if (name === 'any-host') {
  await import('./any-host/main.js');
} else if (name === 'daemon' || name === 'etcd') {
  process.argv.splice(2, 1);
  if (name === 'daemon') await import('./daemon/main.js');
  else await import('./etcd/main.js');
} else {
  await import('./stores.js');
}

export {};
