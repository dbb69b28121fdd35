/** Damages to a bbolt file, as disks, power cuts and programs make them. */
import type { Random } from '../support/random.js';

/** One damage, chosen by the seed. */
export function damage(file: Buffer, pageSize: number, random: Random): Buffer {
  const pages = file.length / pageSize;
  const page = (): number => 2 + random.int(pages - 2);
  const at = page() * pageSize;
  switch (random.int(6)) {
    case 0:
      for (let n = 1 + random.int(8); n > 0; n--) file[at + random.int(pageSize)] = random.int(256);
      return file;
    case 1:
      // The head and the first elements, where all the places are.
      for (let n = 1 + random.int(4); n > 0; n--) file[at + random.int(64)] = random.int(256);
      return file;
    case 2:
      return file.fill(0, at, at + 1 + random.int(pageSize));
    case 3: {
      const other = page() * pageSize;
      const kept = Buffer.from(file.subarray(at, at + pageSize));
      file.copy(file, at, other, other + pageSize);
      kept.copy(file, other);
      return file;
    }
    case 4:
      return file.subarray(0, at + random.int(pageSize));
    default: {
      // A branch or a bucket leads to a page that it has not.
      const to = random.int(pages + 2);
      for (let place = at + 16; place < at + pageSize; place += 16)
        if (random.int(3) === 0) file.writeUInt32LE(to, place + 8);
      return file;
    }
  }
}
