# The addons. <(native): where their sources are, for who includes this.
{
  'variables': { 'strict%': 0 },
  'target_defaults': {
    'defines': ['NAPI_VERSION=9', 'NAPI_DISABLE_CPP_EXCEPTIONS', 'NODE_ADDON_API_DISABLE_DEPRECATED', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS', '__libc_single_threaded=ebbtide_single_threaded'],
    'cflags_cc!': ['-fno-exceptions', '-std=gnu++17', '-std=gnu++20'],
    'cflags!': ['-O2'],
    'include_dirs': ['<(native).'],
    'cflags_cc': [
      '-std=c++20', '-fexceptions', '-O3', '-Wall', '-Wextra', '-fvisibility=hidden',
      '-isystem', '<!(node -p "path.dirname(require.resolve(\'node-addon-api\'))")'
    ],
    'conditions': [['strict==1', { 'cflags_cc': ['-Werror'] }]]
  },
  'targets': [
    {
      'target_name': 'ebbtide_core',
      'sources': [
        '<(native)addon.cc', '<(native)core.cc', '<(native)core_garbage.cc',
        '<(native)base/crc32c.cc',
        '<(native)checkpoint/checkpoint_marks.cc', '<(native)checkpoint/checkpoint_read.cc', '<(native)checkpoint/checkpoint_write.cc',
        '<(native)graph/edges.cc', '<(native)graph/graph.cc', '<(native)graph/graph_snapshot.cc', '<(native)graph/invariants.cc', '<(native)graph/order.cc', '<(native)graph/path.cc', '<(native)graph/ranks.cc', '<(native)graph/retained.cc',
        '<(native)host/older_hosts.cc',
        '<(native)mark/live.cc', '<(native)mark/live_adopt.cc', '<(native)mark/live_check.cc', '<(native)mark/mark.cc'
      ]
    },
    { 'target_name': 'ebbtide_sys', 'sources': ['<(native)host/file_steps.cc', '<(native)host/files.cc', '<(native)host/gzip.cc', '<(native)host/look_at.cc', '<(native)host/lmdb_guard.cc', '<(native)host/older_hosts.cc', '<(native)host/sockets.cc', '<(native)host/sys.cc', '<(native)host/usage.cc'] },
    { 'target_name': 'ebbtide_zstd', 'sources': ['<(native)host/older_hosts.cc', '<(native)host/zstd.cc'], 'libraries': ['-ldl'] }
  ]
}
