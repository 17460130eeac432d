/* The first article of the Universal Declaration of Human Rights, and the like, in 33 languages: scripts with and without spaces, with marks,
 * right to left, with case and without. */

#ifndef TESTS_LANGUAGES_H
#define TESTS_LANGUAGES_H

static const struct {
    const char *name, *text;
} languages[] = {
    { "English", "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience." },
    { "German", "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Die Straße ist groß, das Maß voll." },
    { "French", "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison : « ça » ou l'œuvre." },
    { "Spanish", "Todos los seres humanos nacen libres e iguales en dignidad y derechos. ¿Mañana? ¡Sí, señor!" },
    { "Portuguese", "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Não há razão nem coração sem opção." },
    { "Italian", "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Perché no? È così." },
    { "Dutch", "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Één zeeëend, geïnd." },
    { "Swedish", "Alla människor är födda fria och lika i värde och rättigheter. Ängen ligger på Åland." },
    { "Finnish", "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Älä jää yöksi." },
    { "Hungarian", "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Árvíztűrő tükörfúrógép." },
    { "Polish", "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności. Zażółć gęślą jaźń." },
    { "Czech", "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Příliš žluťoučký kůň." },
    { "Romanian", "Toate ființele umane se nasc libere și egale în demnitate și în drepturi. Țară, înger, mâine." },
    { "Turkish", "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İstanbul'da ışık, DİYARBAKIR." },
    { "Vietnamese", "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi. Nguyễn Huệ." },
    { "Icelandic", "Hver maður er borinn frjáls og jafn öðrum að virðingu og réttindum. Þórður á Ægi." },
    { "Russian", "Все люди рождаются свободными и равными в своём достоинстве и правах. Ещё ёлка и подъезд." },
    { "Ukrainian", "Всі люди народжуються вільними і рівними у своїй гідності та правах. Їжак, ґанок, під'їзд." },
    { "Bulgarian", "Всички хора се раждат свободни и равни по достойнство и права. Ѝ казах, че щъркелът дойде." },
    { "Greek", "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια. Ο Οδυσσέας, ΟΔΥΣΣΕΥΣ." },
    { "Armenian", "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ։ Երևան և Գյումրի։" },
    { "Georgian", "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებით. თბილისი, ქუთაისი." },
    { "Hebrew", "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. בְּרֵאשִׁית בָּרָא אֱלֹהִים." },
    { "Arabic", "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلًا وضميرًا؟ نعم." },
    { "Persian", "تمام افراد بشر آزاد به دنیا می\u200cآیند و از لحاظ حیثیت با هم برابرند. کتاب\u200cها را می\u200cخوانم." },
    { "Urdu", "تمام انسان آزاد اور حقوق و عزت کے اعتبار سے برابر پیدا ہوئے ہیں۔ انہیں ضمیر اور عقل ودیعت ہوئی ہے۔" },
    { "Hindi", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। क्षेत्र, ज़िन्दगी, पढ़ना।" },
    { "Bengali", "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে। কোনো বাড়ি, আষাঢ়।" },
    { "Tamil", "மனிதப் பிறவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர். கோயில், பொங்கல், ஶ்ரீ." },
    { "Thai", "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ น้ำ กำลัง ต่างมีเหตุผลและมโนธรรม" },
    { "Chinese", "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。" },
    { "Japanese", "すべての人間は、生まれながらにして自由であり、尊厳と権利とについて平等である。ガギグゲゴ、ﾊﾝｶｸ、プログラム。" },
    { "Korean", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 2024년 한국어 문장." },
};

enum { LANGUAGES = sizeof languages / sizeof *languages };

#endif
