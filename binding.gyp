# For node-gyp in a clone. Left out of the package: npm would build it at every installation.
{ 'variables': { 'native': 'native/' }, 'includes': ['native/addons.gypi'] }
