/** A spool in a directory, for Node. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { isEntry, sortEntries, type Entry, type Spool } from "./spool.js";

/**
 * A spool with one file for each event in `directory`, which processes may share. An event is written before the call
 * that submits it returns (tens of microseconds on a local disk) and survives SIGKILL; a loss of power may lose the
 * last few. Only the user of the process can read the files (mode 0600). Processes that send from the spool at the same
 * moment may send an event twice; its id makes the second delivery a replay.
 */
export function fileSpool(directory: string): Spool {
  const cache = new Map<string, Entry>(); // by file name, so that `list` reads each file only once
  const makeDirectory = (): void => void mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    makeDirectory();
  } catch {
    // `put` fails too, and then the client keeps its events in memory.
  }
  return {
    put(entries) {
      if (!existsSync(directory)) makeDirectory();
      for (const entry of entries) {
        const path = join(directory, entry.key);
        writeFileSync(`${path}.part`, JSON.stringify(entry), { mode: 0o600 });
        renameSync(`${path}.part`, `${path}.json`);
        cache.set(`${entry.key}.json`, entry);
      }
    },
    list() {
      const names = new Set(readdirSync(directory).filter((name) => name.endsWith(".json")));
      for (const name of cache.keys()) if (!names.has(name)) cache.delete(name);
      for (const name of names) {
        const entry = cache.get(name) ?? readEntry(join(directory, name));
        if (entry) cache.set(name, entry);
      }
      return sortEntries([...cache.values()]);
    },
    delete(keys) {
      for (const key of keys) rmSync(join(directory, `${key}.json`), { force: true });
    },
  };
}

function readEntry(path: string): Entry | undefined {
  try {
    const entry: unknown = JSON.parse(readFileSync(path, "utf8"));
    return isEntry(entry) ? entry : undefined;
  } catch {
    return undefined; // another process has delivered the event and removed its file
  }
}
