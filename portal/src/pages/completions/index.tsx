import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function CompletionsPage() {
  const t = useText();
  return <Page title={t("completions.title")}>{null}</Page>;
}
