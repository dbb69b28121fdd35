/** A temporary directory for one test. */
export { tempDir } from '../support/temp.js';
