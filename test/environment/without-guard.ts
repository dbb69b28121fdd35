/**
 * Preloaded (`node --import`) into a program and its threads: LMDB is used as its package ships it, without what
 * native/host/lmdb_guard.h puts right.
 */
import { loadAddon } from '../../src/system/addon.js';

const addon = loadAddon('ebbtide_sys');
if (addon !== undefined) Object.assign(addon, { guardLmdb: () => false });
