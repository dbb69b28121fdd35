/** Makes a backup, or restores one, to be killed meanwhile: node backup-child.js backup ROOT TARGET | restore BACKUP ROOT */
import { restoreBackup } from '../../src/backup/restore.js';
import { open } from './support.js';

const [what, from, to] = process.argv.slice(2);
if (what === 'restore') await restoreBackup(from!, to!);
else {
  const db = await open(from!);
  await db.backup(to!);
  await db.close();
}
