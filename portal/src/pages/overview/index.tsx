import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function OverviewPage() {
  const t = useText();
  return <Page title={t("overview.title")}>{null}</Page>;
}
