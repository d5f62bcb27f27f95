import { useMemo } from "react";
import type { CompletionDetail } from "../../../api/types";
import { useText } from "../../../i18n";
import { bodyOf, curlOf, pythonOf } from "../snippets";
import { LongText } from "./long_text";

/** The call as text to paste: in a shell, or in Python with the official SDK. */
export function Repeat({ detail }: { detail: CompletionDetail }) {
  const t = useText();
  const [curl, python] = useMemo(() => {
    const body = bodyOf(detail);
    return [curlOf(window.location.origin, body), pythonOf(window.location.origin, body)];
  }, [detail]);
  return (
    <>
      <p className="quiet small">{t("completions.repeat_text")}</p>
      <LongText code label={t("completions.starter_curl")} text={curl} />
      <LongText code label={t("completions.starter_python")} text={python} />
    </>
  );
}
