import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function KeysPage() {
  const t = useText();
  return <Page title={t("keys.title")}>{null}</Page>;
}
