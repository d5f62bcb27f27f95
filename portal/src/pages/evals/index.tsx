import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function EvalsPage() {
  const t = useText();
  return <Page title={t("evals.title")}>{null}</Page>;
}
