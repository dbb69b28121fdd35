{
  'variables': { 'strict%': 0 },
  'target_defaults': {
    'defines': ['NAPI_VERSION=9', 'NAPI_DISABLE_CPP_EXCEPTIONS', 'NODE_ADDON_API_DISABLE_DEPRECATED', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS', '__libc_single_threaded=ebbtide_single_threaded'],
    'cflags_cc!': ['-fno-exceptions', '-std=gnu++17', '-std=gnu++20'],
    'cflags!': ['-O2'],
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
        'addon.cc', 'checkpoint_read.cc', 'checkpoint_write.cc', 'core.cc',
        'crc32c.cc', 'edges.cc', 'graph.cc', 'mark.cc', 'order.cc', 'older_hosts.cc', 'path.cc',
        'picture.cc', 'ranks.cc', 'retained.cc'
      ]
    },
    { 'target_name': 'ebbtide_sys', 'sources': ['files.cc', 'lmdb_guard.cc', 'older_hosts.cc', 'sys.cc'] },
    { 'target_name': 'ebbtide_zstd', 'sources': ['older_hosts.cc', 'zstd.cc'], 'libraries': ['-ldl'] }
  ]
}
