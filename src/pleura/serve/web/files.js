// Files that a reader drops or picks: single ones, or all below a folder, in the order of their names.
//
// Exports: droppedFiles, pickedFiles.

const HIDDEN = /^(\.|Thumbs\.db$|desktop\.ini$|DICOMDIR$)/i;
const MOST = 2000;

/** [{file: File, name}] of a drop; name: the path below what was dropped. Rejects where a folder cannot be read, and
 *  with a RangeError where the files are too many. */
export async function droppedFiles(transfer) {
  // Entries are there only until the event is over.
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return pickedFiles(transfer.files);
  const found = [];
  for (const entry of entries) await collect(entry, found);
  return ordered(found);
}

/** [{file: File, name}] of a file picker, for files or a folder. Throws a RangeError where they are too many. */
export function pickedFiles(files) {
  return ordered([...files].map(file => ({ file, name: file.webkitRelativePath || file.name })));
}

async function collect(entry, found) {
  if (HIDDEN.test(entry.name) || found.length > MOST) return;
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    found.push({ file, name: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {  // a hundred at a time
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const one of some) await collect(one, found);
  }
}

function ordered(found) {
  const seen = found.filter(({ name }) => !name.split("/").some(part => HIDDEN.test(part)));
  if (seen.length > MOST) throw new RangeError(`more than ${MOST} files: open them in parts`);
  return seen.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
}
