import { useWords } from "../../i18n";

export const UNKNOWN = "und";

/** A language by its name in the reader's language. */
export function useLanguageName(): (code: string) => string {
  const { language, t } = useWords();
  return (code) => {
    if (code === UNKNOWN) return t("distill.language_unknown");
    try {
      return new Intl.DisplayNames([language], { type: "language" }).of(code) ?? code;
    } catch {
      return code;
    }
  };
}
