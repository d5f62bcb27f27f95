import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function UsagePage() {
  const t = useText();
  return <Page title={t("usage.title")}>{null}</Page>;
}
