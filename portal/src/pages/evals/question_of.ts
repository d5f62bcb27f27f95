import { lastQuestion, said } from "../../api/messages";
import type { OutputItem } from "../../api/types";

/** What an item asked last. */
export function questionOf({ datasource_item: { input } }: OutputItem): string {
  return typeof input === "string" ? input : said(lastQuestion(input ?? []));
}
