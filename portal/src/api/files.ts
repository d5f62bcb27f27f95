import { upload } from "./http";
import type { StoredFile } from "./types";

const FILES = "/v1/files";

/** The whole of a file, as the browser saves it or the portal reads it. */
export const contentOf = (id: string): string => `${FILES}/${encodeURIComponent(id)}/content`;

export function store(file: File, purpose: string): Promise<StoredFile> {
  const form = new FormData();
  form.set("purpose", purpose);
  form.set("file", file);
  return upload<StoredFile>(FILES, form);
}
