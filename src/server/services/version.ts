/** containerd.services.version.v1.Version */
import { type EMPTY, type Service, unary } from '../service.js';
import { revision, version } from '../version-info.js';

export const versionService = (): Service => ({
  name: 'containerd.services.version.v1.Version',
  methods: { Version: unary((_request: typeof EMPTY) => ({ version, revision })) },
});
