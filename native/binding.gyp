# What build.mjs builds, also in an installed package, which has no binding.gyp in its root.
{ 'variables': { 'native': '' }, 'includes': ['addons.gypi'] }
