// Builds the graph core's addon with assertions (native/base/debug.h) and a program that shows that they can fail:
//
//   node test/native/debug/build.mjs [DIRECTORY]     into build/debug by default; prints the directory
//
// `EBBTIDE_ADDONS=DIRECTORY` then makes anything of this package use that addon. Needs g++ and Node's headers next to node.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { build, core, root } from '../programs.mjs';

const [, , out = join(root, 'build/debug')] = process.argv;
const headers = join(dirname(dirname(process.execPath)), 'include/node');
if (!existsSync(join(headers, 'node_api.h'))) {
  console.error(`Node's headers are not in ${headers}`);
  process.exit(1);
}
const api = dirname(createRequire(import.meta.url).resolve('node-addon-api'));
const native = (name) => join(root, 'native', name);
const defines = [
  'EBBTIDE_DEBUG',
  'NAPI_VERSION=9',
  'NAPI_DISABLE_CPP_EXCEPTIONS',
  'NODE_ADDON_API_DISABLE_DEPRECATED',
  'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
].map((define) => `-D${define}`);
await build({
  compiler: process.env.CXX ?? 'g++',
  flags: ['-fPIC', ...defines, '-isystem', headers, '-isystem', api],
  out,
  programs: {
    'ebbtide_core.node': { sources: [...core, native('addon.cc')], flags: ['-shared'] },
    assertions: { sources: [...core, join(root, 'test/native/debug/assertions.cc')], flags: [] },
  },
});
console.log(out);
