/** Writes docs/ebbtide.1; part of the build. */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { manPage } from './man-page.js';
import { createProgram } from './program.js';

writeFileSync(
  fileURLToPath(new URL('../../../docs/ebbtide.1', import.meta.url)),
  manPage(await createProgram()),
);
