# The addons. <(native): where their sources are, for who includes this.
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
        '<(native)addon.cc', '<(native)checkpoint_read.cc', '<(native)checkpoint_write.cc', '<(native)core.cc',
        'crc32c.cc', '<(native)edges.cc', '<(native)graph.cc', '<(native)invariants.cc', '<(native)live.cc', '<(native)live_check.cc', '<(native)mark.cc', '<(native)order.cc', '<(native)older_hosts.cc', '<(native)path.cc',
        '<(native)graph_snapshot.cc', '<(native)ranks.cc', '<(native)retained.cc'
      ]
    },
    { 'target_name': 'ebbtide_sys', 'sources': ['<(native)file_steps.cc', '<(native)files.cc', '<(native)look_at.cc', '<(native)lmdb_guard.cc', '<(native)older_hosts.cc', '<(native)sys.cc'] },
    { 'target_name': 'ebbtide_zstd', 'sources': ['<(native)older_hosts.cc', '<(native)zstd.cc'], 'libraries': ['-ldl'] }
  ]
}
